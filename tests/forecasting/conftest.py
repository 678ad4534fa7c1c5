"""A study of tiny models, ready to be judged."""

from tests.support.judged_study import manifest, study

__all__ = ["manifest", "study"]
