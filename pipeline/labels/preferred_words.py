"""Words that a user prefers, found in names."""

import re
from collections.abc import Sequence


def preference(name: str, prefer: Sequence[str]) -> tuple[bool, ...]:
    """Return a sort key: names with the first word come first, then those with the second.

    A word is found in capital or small letters where no other letter or digit touches it, so that
    `acq-mprage` is found in `sub-1_acq-mprage_T1w` and `run-1` not in `run-10`.
    """
    low = name.lower()
    return tuple(
        not re.search(rf"(?<![a-z0-9]){re.escape(word.lower())}(?![a-z0-9])", low)
        for word in prefer
    )
