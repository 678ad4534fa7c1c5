"""Export an autoencoder: as a MONAI bundle, or as the one inside the package."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def export_ae(
    *,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    ae: Annotated[Path, typer.Option(help="Autoencoder folder.")] = Path("models/ae"),
    kind: Annotated[
        Literal["monai", "bundled"],
        typer.Option("--format", help="MONAI bundle, or float16 for the package itself."),
    ] = "monai",
    card: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Markdown that replaces the model card (bundled)."
        ),
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
    from pipeline.models.bundled import export_bundled

    size = export_bundled(ae, out, card=card.read_text() if card else None)
    typer.echo(f"{out}: {size / 1e6:.2f} MB in float16")
