"""Export an LDAE as the one inside the package."""

from pathlib import Path
from typing import Annotated

import typer


def export_ldae(
    *,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    ldae: Annotated[Path, typer.Option(help="Model of train-ldae.")] = Path("models/ldae"),
    card: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Markdown that replaces the model card."),
    ] = None,
) -> None:
    """Write an LDAE for the package: weights in float16, at most 25 MB, statistics in float32.

    Example: pipeline export-ldae --ldae models/ldae --out pipeline/weights/ldae --card card.md
    """
    from pipeline.models.bundled_ldae import export_bundled_ldae

    size = export_bundled_ldae(ldae, out, card=card.read_text() if card else None)
    typer.echo(f"{out}: {size / 1e6:.2f} MB, weights in float16, statistics in float32")
