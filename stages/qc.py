"""Review quality control: summarise, draw what is doubted, decide by hand."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.common_options import Settings

if TYPE_CHECKING:
    from pipeline.preprocessing.qc_overrides import Override


def qc(
    context: typer.Context,
    *,
    table: Annotated[Path, typer.Option(help="QC table of the preprocess stage.")] = Path(
        "data/qc.csv"
    ),
    overrides_csv: Annotated[
        Path, typer.Option("--overrides", help="Verdicts by hand (CSV); may be absent.")
    ] = Path("qc_overrides.csv"),
    mark: Annotated[
        list[str] | None,
        typer.Option(help='Decide on a scan: SCAN_ID=STATUS:"reason"; STATUS pass, warn, fail.'),
    ] = None,
    unmark: Annotated[list[str] | None, typer.Option(help="Take a decision back: SCAN_ID.")] = None,
    sheets: Annotated[
        Path | None, typer.Option(help="Folder for a contact sheet (PNG) of each doubted scan.")
    ] = None,
    every: Annotated[
        bool, typer.Option("--every", help="A sheet of every scan, not of the doubted alone.")
    ] = False,
    volumes: Annotated[Path, typer.Option(help="volumes.zarr, for the sheets.")] = Path(
        "data/volumes.zarr"
    ),
    worst: Annotated[int, typer.Option(min=1, help="Scans named for each number.")] = 3,
) -> None:
    """Summarise the QC table, draw the doubted scans, override a verdict.

    Decisions go to qc_overrides.csv, which `pipeline preprocess --overrides` applies.

    Example: pipeline qc --table data/qc.csv --mark sub-01_ses-02=fail:"motion"
    """
    settings: Settings = context.obj
    from pipeline.preprocessing.contact_sheets import draw_sheets
    from pipeline.preprocessing.qc_overrides import check_known, read_overrides, write_overrides
    from pipeline.preprocessing.qc_summary import read_qc, summary_lines
    from pipeline.stores.volumes import open_volumes

    scans = read_qc(table)
    overrides = read_overrides(overrides_csv)
    if mark or unmark:
        decisions = dict(_parse(text) for text in mark or [])
        check_known([*decisions, *(unmark or [])], scans.index, where=str(table))
        overrides |= decisions
        overrides = {k: v for k, v in overrides.items() if k not in (unmark or [])}
        write_overrides(overrides_csv, overrides)
        typer.echo(f"{overrides_csv}: {len(overrides)} scans set by hand")
        return
    params = settings.params().preprocess
    for line in summary_lines(scans, overrides, params.qc, count=worst):
        typer.echo(line)
    if sheets is not None:
        limit = params.max_bytes
        store = open_volumes(volumes)
        written = draw_sheets(scans, store, sheets, max_bytes=limit, every=every)
        none = "; no scan is doubted, --every draws all" if not (written or every) else ""
        typer.echo(f"\n{sheets}: {len(written)} contact sheets{none}")


def _parse(text: str) -> tuple[str, "Override"]:
    from pipeline.preprocessing.qc_overrides import checked_override
    from schemas.errors import ParamsError

    scan_id, equals, rest = text.partition("=")
    status, colon, reason = rest.partition(":")
    if not (scan_id and equals and colon):
        raise ParamsError(f'--mark {text}: expected SCAN_ID=STATUS:"reason"')
    return scan_id, checked_override(status, reason.strip(), where=f"--mark {scan_id}")
