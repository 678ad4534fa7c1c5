"""Stage 1: collect the scans of a cohort, with their labels, and split them by subject."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.common_options import Settings
from stages.messages import from_here

if TYPE_CHECKING:
    from schemas.params import CohortParams


def cohort(
    context: typer.Context,
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for manifest.csv and quarantine.csv; --dry-run needs none."),
    ] = None,
    input_path: Annotated[
        Path | None,
        typer.Option("--input", help="BIDS root, folder of images or of DICOM series, table."),
    ] = None,
    phantom: Annotated[
        int | None, typer.Option(min=1, help="Make a phantom cohort of N subjects instead.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(help="Label columns by your names: age=AGE,diagnosis=DX."),
    ] = None,
    bids_filter_file: Annotated[
        Path | None,
        typer.Option(help='fMRIPrep\'s filter (JSON): {"t1w": {"acquisition": "mprage"}}.'),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be taken; write nothing.")
    ] = False,
) -> None:
    """Collect scans into a manifest with a subject-level split.

    Example: pipeline cohort --input bids/ --out data/cohort
    """
    settings: Settings = context.obj
    from pipeline.cohort.bundled_people import warning_of_seen
    from pipeline.cohort.candidates import FILE, write_candidates
    from pipeline.cohort.ingest import build_cohort
    from pipeline.cohort.manifest import write_manifest
    from pipeline.runtime.files import writing_to
    from pipeline.runtime.progress import counted
    from schemas.errors import ParamsError
    from schemas.manifest import SELECTION

    params = _params_of(settings, input_path, phantom, columns, bids_filter_file)
    if dry_run:
        _preview(params, input_path, every=settings.verbose)
        return
    if out is None:
        raise ParamsError("cohort: expected --out FOLDER (only --dry-run goes without)")
    source = input_path or params.input
    if params.source == "phantom":
        from pipeline.phantom.cohort import make_phantom_cohort

        source = make_phantom_cohort(out / "bids", params.phantom, workers=settings.num_workers())
        params = params.model_copy(update={"source": "bids"})
    collected = build_cohort(params, input_path=source, cache=out / "dicom")
    manifest, quarantine = collected.manifest, collected.refused
    with writing_to(out):
        write_manifest(manifest, out / "manifest.csv")
        quarantine.to_csv(out / "quarantine.csv", index=False)
        write_candidates(collected.candidates, out / FILE)
    if settings.params().autoencoder.source == "bundled":
        warning = warning_of_seen(manifest, remedy=params.split.seen != "train")
        if warning is not None:
            typer.echo(warning, err=True)
    counts = manifest.groupby("split")["subject_id"].nunique().to_dict()
    left = int((quarantine["stage"] == SELECTION).sum())
    typer.echo(
        f"{out / 'manifest.csv'}: {counted(len(manifest), 'scan')} of"
        f" {counted(manifest['subject_id'].nunique(), 'subject')}"
        f" ({', '.join(f'{k} {v}' for k, v in counts.items())}), {len(quarantine) - left} refused"
        + (f", {counted(left, 'other image')} left out" if left else "")
        + (f", reasons in {out / 'quarantine.csv'}" if len(quarantine) else "")
    )


def _params_of(
    settings: Settings,
    input_path: Path | None,
    phantom: int | None,
    columns: str | None,
    bids_filter_file: Path | None,
) -> "CohortParams":
    """Return the section `cohort` with the changes of the command line."""
    from pipeline.sources.bids_choice import read_filter_file
    from pipeline.sources.kind import detect_source
    from schemas.errors import ParamsError

    params = settings.params().cohort
    if phantom is not None:
        phantoms = params.phantom.model_copy(update={"subjects": phantom})
        params = params.model_copy(update={"source": "phantom", "phantom": phantoms})
    elif input_path is not None:
        params = params.model_copy(update={"source": detect_source(input_path)})
    if columns is not None:
        params = params.model_copy(update={"columns": params.columns | _mapping(columns)})
    if bids_filter_file is not None:
        wanted = read_filter_file(bids_filter_file)
        params = params.model_copy(update={"bids_filter": dict(params.bids_filter) | wanted})
    if params.source != "phantom" and input_path is None and params.input is None:
        raise ParamsError("cohort.input: expected a folder or table; give --input or --phantom N")
    return params


def _preview(params: "CohortParams", input_path: Path | None, *, every: bool) -> None:
    """Print which scans would be taken."""
    from pipeline.cohort.dry_run import header_faults, preview_lines
    from pipeline.cohort.ingest import build_cohort

    if params.source == "phantom":
        typer.echo(f"{params.phantom.subjects} phantom subjects would be made; nothing written")
        return
    collected = build_cohort(params, input_path=input_path, dry_run=True)
    # A DICOM series has no one file whose header could be looked at.
    faults = {} if params.source == "dicom" else header_faults(collected.manifest)
    for line in preview_lines(collected, faults, every=every):
        typer.echo(from_here(line))


def _mapping(text: str) -> dict[str, str]:
    from schemas.errors import ParamsError

    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and column.strip() for name, _, column in pairs):
        raise ParamsError(f"--columns {text}: expected name=COLUMN[,name=COLUMN]")
    names = [name.strip() for name, _, _ in pairs]
    if len(set(names)) < len(names):
        raise ParamsError(f"--columns {text}: a name is given twice")
    return {name.strip(): column.strip() for name, _, column in pairs}
