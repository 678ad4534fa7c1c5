"""Measure this computer against the table of targets."""

from pathlib import Path
from typing import Annotated

import typer


def bench(
    *,
    what: Annotated[
        str | None, typer.Option(help="Rows by name, with commas; default: all but `demo`.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for <kind of machine>.json and .md.")] = Path(
        "benchmarks/results"
    ),
    readme: Annotated[
        Path | None, typer.Option(help="Markdown file whose table of figures is replaced.")
    ] = None,
    note: Annotated[
        str, typer.Option(help="What else a reader should know, kept with the results.")
    ] = "",
    show: Annotated[
        bool, typer.Option("--list", help="Name the rows and what they take; measure nothing.")
    ] = False,
) -> None:
    """Measure rows side by side with what they are compared with; each in a process of its own.

    Example: pipeline bench --what help,batch --out results
    """
    from benchmarks.framework.listing import listed_rows

    names = [name.strip() for name in what.split(",")] if what else []
    listed = listed_rows(names)
    if show:
        for row in listed:
            typer.echo(f"{row.name:18} {row.seconds:4.0f} s  {row.what}")
        return

    from benchmarks.framework.run import chosen_rows, kind_of_machine, run_rows
    from benchmarks.framework.tables import full_text, put_table, short_table

    results = run_rows(chosen_rows(names), out, note=note)
    (out / f"{kind_of_machine()}.md").write_text(full_text(results))
    if readme is not None:
        put_table(readme, results)
    typer.echo(short_table(results))
