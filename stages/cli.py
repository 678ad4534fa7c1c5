"""The `pipeline` command: every stage, and what is no stage beside them.

Only typer is imported here; a command's own work is imported when it runs.
"""

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from stages import (
    bench,
    cohort,
    doctor,
    embed,
    encode,
    evaluate,
    export_ae,
    generate,
    import_ae,
    info,
    init,
    interpolate,
    manipulate,
    preprocess,
    probe,
    qc,
    reconstruct,
    report,
    train_ae,
    train_ldae,
    train_ldm,
    train_voxel_dae,
    vary,
    verify,
)
from stages.settings import command

app = typer.Typer(
    name="pipeline",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

STAGES: dict[str, Callable[..., None]] = {
    "cohort": cohort.cohort,
    "preprocess": preprocess.preprocess,
    "train-ae": train_ae.train_ae,
    "encode": encode.encode,
    "train-ldm": train_ldm.train_ldm,
    "train-ldae": train_ldae.train_ldae,
    "embed": embed.embed,
    "probe": probe.probe,
    "evaluate": evaluate.evaluate,
    "report": report.report,
}
TOOLS: dict[str, Callable[..., None]] = {
    "init": init.init,
    "doctor": doctor.doctor,
    "info": info.info,
    "qc": qc.qc,
    "verify": verify.verify,
    "reconstruct": reconstruct.reconstruct,
    "vary": vary.vary,
    "generate": generate.generate,
    "manipulate": manipulate.manipulate,
    "interpolate": interpolate.interpolate,
    "export-ae": export_ae.export_ae,
    "import-ae": import_ae.import_ae,
    "train-voxel-dae": train_voxel_dae.train_voxel_dae,
    "bench": bench.bench,
}


def _print_version(wanted: bool) -> None:
    if wanted:
        from pipeline import __version__

        typer.echo(f"ldae-pipeline {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """Learn from 3D brain MRI: precompute latents once, train from them for ever after.

    Example: pipeline encode --input nifti/ --out latents.zarr
    """


for _panel, _commands in (("Stages, in order", STAGES), ("Tools", TOOLS)):
    for _name, _function in _commands.items():
        app.command(_name, rich_help_panel=_panel)(command(_function))


def main() -> None:
    """Run the command line; errors meant for users are one line on stderr and exit code 2."""
    from schemas.errors import PipelineError

    try:
        app()
    except PipelineError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        sys.stderr.write(f"error: {where}{error.strerror or error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; finished work is kept, run the same command to go on\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
