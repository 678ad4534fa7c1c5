"""Sort names of images by the words that a user prefers."""

import re
from collections.abc import Sequence


def preference(name: str, prefer: Sequence[str]) -> tuple[bool, ...]:
    """Return a sort key: names with the first word come first, then those with the second.

    Words are matched in any case, and not as part of a longer word: `acq-mprage` matches
    `sub-1_acq-mprage_T1w`, `run-1` does not match `run-10`.
    """
    low = name.lower()
    return tuple(
        not re.search(rf"(?<![a-z0-9]){re.escape(word.lower())}(?![a-z0-9])", low)
        for word in prefer
    )
