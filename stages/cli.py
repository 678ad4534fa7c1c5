"""The `pipeline` command: the eleven stages, and the tools beside them.

Only typer is imported here; a command's own work is imported when it runs.
"""

import sys
from collections.abc import Callable
from typing import Annotated

import typer
from typer.exceptions import TyperException

from stages import (
    bench,
    bids,
    brain_age,
    cohort,
    crossfit,
    docs,
    doctor,
    embed,
    encode,
    evaluate,
    explore,
    export_ae,
    export_bids,
    export_ldae,
    features,
    forecast,
    generate,
    import_ae,
    import_ldae,
    info,
    init,
    interpolate,
    longitudinal,
    manipulate,
    preprocess,
    probe,
    push_store,
    qc,
    reconstruct,
    regions,
    report,
    scanner,
    train_ae,
    train_ldae,
    train_ldm,
    train_voxel_dae,
    vary,
    verify,
)
from stages.common_options import StudyCommand, print_version
from stages.messages import from_here

app = typer.Typer(
    name="pipeline",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

INTERRUPTED = 130

STAGES: dict[str, Callable[..., None]] = {
    "cohort": cohort.cohort,
    "preprocess": preprocess.preprocess,
    "train-ae": train_ae.train_ae,
    "encode": encode.encode,
    "train-ldm": train_ldm.train_ldm,
    "train-ldae": train_ldae.train_ldae,
    "embed": embed.embed,
    "crossfit": crossfit.crossfit,
    "probe": probe.probe,
    "evaluate": evaluate.evaluate,
    "report": report.report,
}
TOOLS: dict[str, Callable[..., None]] = {
    "init": init.init,
    "doctor": doctor.doctor,
    "docs": docs.docs,
    "info": info.info,
    "qc": qc.qc,
    "verify": verify.verify,
    "push-store": push_store.push_store,
    "reconstruct": reconstruct.reconstruct,
    "vary": vary.vary,
    "generate": generate.generate,
    "manipulate": manipulate.manipulate,
    "interpolate": interpolate.interpolate,
    "forecast": forecast.forecast,
    "explore": explore.explore,
    "bids": bids.bids,
    "export-bids": export_bids.export_bids,
    "export-ae": export_ae.export_ae,
    "export-ldae": export_ldae.export_ldae,
    "import-ae": import_ae.import_ae,
    "import-ldae": import_ldae.import_ldae,
    "regions": regions.regions,
    "scanner": scanner.scanner,
    "longitudinal": longitudinal.longitudinal,
    "brain-age": brain_age.brain_age,
    "features": features.features,
    "train-voxel-dae": train_voxel_dae.train_voxel_dae,
    "bench": bench.bench,
}


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=print_version),
    ] = False,
) -> None:
    """Learn from 3D brain MRI: precompute latents once, train from them for ever after.

    Example: pipeline encode --input nifti/ --out latents.zarr
    """


for _panel, _commands in (("Stages, in order", STAGES), ("Tools", TOOLS)):
    for _name, _function in _commands.items():
        _class = bids.BidsCommand if _name == "bids" else StudyCommand
        app.command(_name, cls=_class, rich_help_panel=_panel)(_function)


def main() -> None:
    """Run the command line; errors meant for users are one line on stderr and exit code 2."""
    from schemas.errors import PipelineError

    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="pipeline", standalone_mode=False)
    except PipelineError as error:
        sys.exit(_say(str(error), error.exit_code))
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        sys.exit(_say(f"{where}{error.strerror or error}", 2))
    except TyperException as error:
        sys.exit(_say(_usage(error), error.exit_code))
    if code == INTERRUPTED:
        sys.stderr.write("interrupted; finished work is kept, run the same command to go on\n")
    sys.exit(code)


def _say(message: str, code: int) -> int:
    sys.stderr.write(f"error: {from_here(message)}\n")
    return code


def _usage(error: TyperException) -> str:
    """Return what is wrong with the command line, and where its options are listed."""
    from schemas.errors import in_plain_words

    message = " ".join(in_plain_words(error.format_message()).split())
    context = getattr(error, "ctx", None)
    if context is None:
        return message
    return f"{message}{'' if message[-1] in '.?' else '.'} See {context.command_path} --help"


if __name__ == "__main__":
    main()
