"""Pages of a BIDS derivative: one a participant, and one of the group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline import __version__
from pipeline.bids_export.names import ScanNames
from pipeline.imaging.qc import NUMBERS
from pipeline.runtime.files import write_atomic

KEY_MARK = '<meta name="export-key" content="{}">'


@dataclass(frozen=True, slots=True)
class ShownScan:
    """One scan on the page of its participant."""

    names: ScanNames
    qc: Mapping[str, Any]
    pictures: Mapping[str, str]
    """Title → data URI."""

    @property
    def numbers(self) -> dict[str, Any]:
        """Return the numbers of quality control that are known."""
        return {name: self.qc[name] for name in NUMBERS if self.qc.get(name) is not None}


def page_of(participant: str) -> str:
    """Return the file name of a participant's page."""
    return f"{participant}.html"


def is_current(out: Path, participant: str, key: str) -> bool:
    """Return whether the page was made of these very scans."""
    try:
        text = (out / page_of(participant)).read_text()
    except OSError:
        return False
    return KEY_MARK.format(key) in text


def write_participant(out: Path, participant: str, scans: Sequence[ShownScan], key: str) -> None:
    """Write the page of a participant."""
    page = _environment().get_template("participant.html.j2").render(
        participant=participant, scans=scans, key=KEY_MARK.format(key), version=__version__
    )  # fmt: skip
    write_atomic(out / page_of(participant), page)


def write_group(out: Path, rows: Sequence[Mapping[str, Any]], *, study_report: bool) -> None:
    """Write index.html: every scan with its verdict, and where to look on.

    Parameters
    ----------
    rows
        participant, session, status, reasons, brain_ml, ncc, of every scan.
    study_report
        Whether the study's report lies beside it.
    """
    counts = {s: sum(r["status"] == s for r in rows) for s in ("pass", "warn", "fail", "error")}
    page = _environment().get_template("group.html.j2").render(
        rows=rows, counts=counts, study_report=study_report, version=__version__,
        pages={str(r["participant"]) for r in rows
               if (out / page_of(str(r["participant"]))).is_file()},
    )  # fmt: skip
    path = out / "index.html"
    if not path.is_file() or path.read_text() != page:
        write_atomic(path, page)


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("pipeline.bids_export", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
