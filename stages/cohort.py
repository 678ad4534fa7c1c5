"""Stage 1: which scans, whose, and in which split."""

from pathlib import Path
from typing import Annotated

import typer

from stages.messages import from_here
from stages.settings import Settings


def cohort(
    settings: Settings,
    *,
    out: Annotated[Path, typer.Option(help="Folder for manifest.csv and quarantine.csv.")],
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be taken; write nothing.")
    ] = False,
) -> None:
    """Collect scans into a manifest with a subject-level split.

    Example: pipeline cohort --input bids/ --out data/cohort
    """
    from pipeline.cohort.ingest import build_manifest, detect_source
    from pipeline.cohort.manifest import write_manifest
    from pipeline.cohort.preview import header_faults, preview_lines
    from pipeline.compute import counted
    from pipeline.stores.builder import writing_to
    from schemas.errors import ParamsError

    params = settings.params().cohort
    if phantom is not None:
        made = params.phantom.model_copy(update={"subjects": phantom})
        params = params.model_copy(update={"source": "phantom", "phantom": made})
    elif input_path is not None:
        params = params.model_copy(update={"source": detect_source(input_path)})
    if columns is not None:
        params = params.model_copy(update={"columns": params.columns | _mapping(columns)})
    source = input_path or params.input
    if params.source == "phantom":
        if dry_run:
            typer.echo(f"{params.phantom.subjects} phantom subjects would be made; nothing written")
            return
        from pipeline.cohort.phantom.cohort import make_phantom_cohort

        source = make_phantom_cohort(out / "bids", params.phantom, workers=settings.num_workers())
        params = params.model_copy(update={"source": "bids"})
    if source is None:
        raise ParamsError("cohort.input: expected a folder or table; give --input or --phantom N")
    cache = out / "dicom"
    manifest, quarantine = build_manifest(params, input_path=source, cache=cache, dry_run=dry_run)
    if dry_run:
        # A DICOM series has no one file whose header could be looked at.
        faults = {} if params.source == "dicom" else header_faults(manifest)
        for line in preview_lines(manifest, quarantine, faults):
            typer.echo(from_here(line))
        return
    with writing_to(out):
        write_manifest(manifest, out / "manifest.csv")
        quarantine.to_csv(out / "quarantine.csv", index=False)
    counts = manifest.groupby("split")["subject_id"].nunique().to_dict()
    typer.echo(
        f"{out / 'manifest.csv'}: {counted(len(manifest), 'scan')} of"
        f" {counted(manifest['subject_id'].nunique(), 'subject')}"
        f" ({', '.join(f'{k} {v}' for k, v in counts.items())}), {len(quarantine)} refused"
        + (f", reasons in {out / 'quarantine.csv'}" if len(quarantine) else "")
    )


def _mapping(text: str) -> dict[str, str]:
    from schemas.errors import ParamsError

    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and column.strip() for name, _, column in pairs):
        raise ParamsError(f"--columns {text}: expected name=COLUMN[,name=COLUMN]")
    names = [name.strip() for name, _, _ in pairs]
    if len(set(names)) < len(names):
        raise ParamsError(f"--columns {text}: a name is given twice")
    return {name.strip(): column.strip() for name, _, column in pairs}
