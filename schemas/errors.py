"""Errors for users: one line with the object, the expected value, and the remedy."""

import re


class PipelineError(Exception):
    """Base of every error that the user can mend; the command line prints it as one line."""

    exit_code = 2


class ParamsError(PipelineError):
    """A parameter is unknown, of the wrong type, or out of range."""


class ContractError(PipelineError):
    """A table, store or model does not fit what the command needs."""


class ScanError(PipelineError):
    """One scan cannot be used. The cohort goes on; the scan is quarantined with this message."""


class TrainingError(PipelineError):
    """Training cannot go on (NaN loss, too few scans). The last good checkpoint is kept."""


def in_plain_words(message: str) -> str:
    """Return pydantic's message as "expected …", without the words on parsing."""
    wanted = message.split(", unable to parse", maxsplit=1)[0].replace("Value error, ", "")
    wanted = wanted.replace("Input should be", "expected")
    # Python's words for a section, and for a mapping such as cohort.columns.
    wanted = re.sub(r"a valid dictionary or instance of \w+", "keys with values", wanted)
    return wanted.replace("a valid dictionary", "keys with values, {key: value}")
