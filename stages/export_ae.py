"""Export an autoencoder: as a MONAI bundle, or as the one inside the package."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def export_ae(
    *,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    ae: Annotated[Path, typer.Option(help="Autoencoder folder.")] = Path("models/ae"),
    kind: Annotated[
        Literal["monai", "bundled", "hub"],
        typer.Option(
            "--format", help="MONAI bundle, float16 for the package itself, or a folder to upload."
        ),
    ] = "monai",
    card: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Markdown that replaces the model card."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="Of a hub's folder: apache-2.0, cc-by-4.0, …")
    ] = None,
) -> None:
    """Write an autoencoder for others: a MONAI bundle that `python -m monai.bundle run` executes.

    Example: pipeline export-ae --ae models/ae --out ae-bundle
    """
    if kind == "monai":
        from pipeline.models.conversion.monai_export import export_monai_bundle

        export_monai_bundle(ae, out)
        typer.echo(f"{out}: python -m monai.bundle run --config_file configs/inference.json there")
        return
    if kind == "hub":
        write_for_hub(ae, out, kind="ae", licence=licence, card=card)
        return
    from pipeline.models.bundled import export_bundled

    size = export_bundled(ae, out, card=card.read_text() if card else None)
    typer.echo(f"{out}: {size / 1e6:.2f} MB in float16")


def write_for_hub(
    model: Path, out: Path, *, kind: str, licence: str | None, card: Path | None
) -> None:
    """Write a model folder to upload, and say how it is used afterwards."""
    from pipeline.models.hub_export import write_hub_folder
    from schemas.errors import ParamsError

    if licence is None:
        raise ParamsError(f"--format hub: give the --licence of {model}, as apache-2.0")
    text = card.read_text() if card else None
    size = write_hub_folder(model, out, kind=kind, licence=licence, card=text)
    typer.echo(f"{out}: {size / 1e6:.2f} MB; once uploaded, --{kind} hf://OWNER/REPO@REVISION")
