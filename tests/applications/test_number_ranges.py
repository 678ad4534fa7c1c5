"""Numbers and ranges of numbers as typed on the command line."""

import pytest

from pipeline.applications.number_ranges import parse_numbers
from schemas.errors import ParamsError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("-3:3:7", (-3, -2, -1, 0, 1, 2, 3)),
        ("0:1:5", (0, 0.25, 0.5, 0.75, 1)),
        ("2.5", (2.5,)),
        ("-1,0,2", (-1, 0, 2)),
        ("3:-3:3", (3, 0, -3)),
        ("1:1:1", (1,)),
    ],
)
def test_numbers_as_typed(text, expected):
    assert parse_numbers(text, option="--scale") == expected


@pytest.mark.parametrize(
    "text", ["", "a:b:c", "0:1", "0:1:2:3", "0:1:0", "0:1:-2", "0:1:2.5", "nan", "0:inf:3", "0:1:1"]
)
def test_wrong_numbers_are_one_line(text):
    with pytest.raises(ParamsError, match=r"--scale") as caught:
        parse_numbers(text, option="--scale")
    assert "\n" not in str(caught.value)
