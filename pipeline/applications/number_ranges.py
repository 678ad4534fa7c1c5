"""Numbers as a user types them: one, a list `-1,0,2`, or a range `from:to:count`."""

import math

from schemas.errors import ParamsError

MAX_NUMBERS = 1000


def parse_numbers(text: str, *, option: str) -> tuple[float, ...]:
    """Return the numbers of `2`, `-1,0,2` or `-3:3:7` (both ends included).

    Raises
    ------
    ParamsError
        If the text is neither, a number is not finite, or the count is not 1 to MAX_NUMBERS.
    """
    problem = f"{option} {text!r}: expected a number, a list a,b,c or a range from:to:count (0:1:5)"
    try:
        if ":" not in text:
            numbers = tuple(float(part) for part in text.split(","))
        else:
            low, high, count = text.split(":")
            numbers = _evenly(float(low), float(high), int(count), option=option, text=text)
    except ValueError as error:
        raise ParamsError(problem) from error
    if not all(math.isfinite(number) for number in numbers):
        raise ParamsError(f"{problem}; every number must be finite")
    return numbers


def _evenly(low: float, high: float, count: int, *, option: str, text: str) -> tuple[float, ...]:
    if not 1 <= count <= MAX_NUMBERS:
        raise ParamsError(
            f"{option} {text!r}: {count} numbers, expected 1 to {MAX_NUMBERS}; the last part of"
            " from:to:count is how many"
        )
    if count == 1 and low != high:
        raise ParamsError(f"{option} {text!r}: one number cannot span a range; give it alone")
    step = (high - low) / max(1, count - 1)
    # Rounded, so that the middle of -3:3:7 is 0 and not 1e-16.
    return tuple(round(low + i * step, 9) for i in range(count))
