"""The documentation without the repository: pages that the package carries."""

from pathlib import Path
from typing import Annotated

import typer


def docs(
    *,
    page: Annotated[
        str | None, typer.Argument(help="Name of a page; without it, all are listed.")
    ] = None,
    path: Annotated[
        bool, typer.Option("--path", help="Print where the page lies, not its text.")
    ] = False,
) -> None:
    """List the pages of the documentation, or print one (Markdown).

    Example: pipeline docs faq
    """
    files = pages()
    if page is None:
        for name, file in files.items():
            typer.echo(f"{name:22} {file if path else _title(file)}")
        return
    file = _file_of(page, files)
    typer.echo(file if path else file.read_text(encoding="utf-8"), nl=path)


def pages() -> dict[str, Path]:
    """Return the pages by name: of the wheel, or of the repository itself."""
    packaged = Path(__file__).with_name("pages")
    if packaged.is_dir():
        files = sorted(packaged.glob("*.md"))
    else:
        root = Path(__file__).parents[1]
        files = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return {file.stem: file for file in files if file.stem != "index"}


def _file_of(page: str, files: dict[str, Path]) -> Path:
    import difflib

    from schemas.errors import ParamsError

    name = page.removeprefix("docs/").partition("#")[0].removesuffix(".md")
    by_letters = {known.lower(): file for known, file in files.items()}
    if name.lower() in by_letters:
        return by_letters[name.lower()]
    near = difflib.get_close_matches(name, files, n=1)
    hint = f"did you mean {near[0]}?" if near else "`pipeline docs` lists the pages"
    raise ParamsError(f"docs {page}: no such page; {hint}")


def _title(file: Path) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    return next((line.lstrip("# ") for line in lines if line.startswith("# ")), "")
