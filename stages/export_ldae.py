"""Export an LDAE: as the one inside the package, or as a folder for a hub."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from stages.export_ae import write_for_hub


def export_ldae(
    *,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    ldae: Annotated[Path, typer.Option(help="Model of train-ldae.")] = Path("models/ldae"),
    card: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Markdown that replaces the model card."),
    ] = None,
    kind: Annotated[
        Literal["bundled", "hub"],
        typer.Option("--format", help="Float16 for the package itself, or a folder to upload."),
    ] = "bundled",
    licence: Annotated[
        str | None, typer.Option(help="Of a hub's folder: apache-2.0, cc-by-4.0, …")
    ] = None,
) -> None:
    """Write an LDAE for the package (weights in float16, at most 25 MB), or for a hub.

    Example: pipeline export-ldae --ldae models/ldae --out pipeline/weights/ldae --card card.md
    """
    if kind == "hub":
        write_for_hub(ldae, out, kind="ldae", licence=licence, card=card)
        return
    from pipeline.models.bundled_ldae import export_bundled_ldae

    size = export_bundled_ldae(ldae, out, card=card.read_text() if card else None)
    typer.echo(f"{out}: {size / 1e6:.2f} MB, weights in float16, statistics in float32")
