"""The pipeline as a BIDS-App."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stages.common_options import Settings, StudyCommand, print_version

if TYPE_CHECKING:
    from pipeline.bids_export.study import StudyFiles
    from schemas.params import Params

SEVERAL = ("--participant-label", "--participant_label", "--session-label", "--session_label")


class BidsCommand(StudyCommand):
    """A command whose labels may follow one option, as users of other BIDS-Apps write them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read `--participant-label 01 02` as the option given twice."""
        return super().parse_args(ctx, repeat_options(args))


def repeat_options(args: list[str]) -> list[str]:
    """Return the arguments with an option before each of its values.

    Raises
    ------
    ParamsError
        If an option has no value: `--participant-label $NOBODY` must not mean everybody.
    """
    spread: list[str] = []
    option, count = None, 0
    for word in [*args, None]:
        if word is None or word.startswith("-"):
            if option is not None and count == 0:
                from schemas.errors import ParamsError

                raise ParamsError(f"{option}: expected a label or several; leave it out for all")
            option, count = (word, 0) if word in SEVERAL else (None, 0)
            spread += [word] if word is not None and option is None else []
        elif option is not None:
            spread += [option, word]
            count += 1
        else:
            spread.append(word)
    return spread


def bids(
    context: typer.Context,
    *,
    bids_dir: Annotated[Path, typer.Argument(help="The raw BIDS dataset.")],
    out_dir: Annotated[Path, typer.Argument(help="Folder of the derivatives.")],
    level: Annotated[Literal["participant", "group"], typer.Argument(help="participant or group.")],
    participants: Annotated[
        list[str] | None,
        typer.Option(
            "--participant-label", "--participant_label", help="With or without sub-; default: all."
        ),
    ] = None,
    sessions: Annotated[
        list[str] | None,
        typer.Option("--session-label", "--session_label", help="With or without ses-."),
    ] = None,
    bids_filter_file: Annotated[
        Path | None,
        typer.Option(
            "--bids-filter-file", "--bids_filter_file", help="fMRIPrep's filter (JSON), for T1w."
        ),
    ] = None,
    work: Annotated[
        Path, typer.Option("-w", "--work-dir", "--work_dir", help="Folder of stores; keep it.")
    ] = Path("work"),
    cpus: Annotated[
        int | None,
        typer.Option(
            "--n-cpus",
            "--n_cpus",
            "--nprocs",
            "--nthreads",
            min=1,
            help="Processors; default: all.",
        ),
    ] = None,
    memory_mb: Annotated[
        int | None,
        typer.Option("--mem-mb", "--mem_mb", "--mem", min=1, help="Memory (MB); fewer workers."),
    ] = None,
    ae: Annotated[
        Path | None, typer.Option(help="Autoencoder folder; default: the bundled one.")
    ] = None,
    ldae: Annotated[
        Path | None, typer.Option(help="LDAE folder; default: the bundled one.")
    ] = None,
    skip_validation: Annotated[  # noqa: ARG001
        bool,
        typer.Option(
            "--skip-bids-validation", "--skip_bids_validation", help="Accepted; nothing validates."
        ),
    ] = False,
    threads: Annotated[  # noqa: ARG001
        int | None,
        typer.Option("--omp-nthreads", "--omp_nthreads", min=1, help="Accepted; --n-cpus decides."),
    ] = None,
    no_tracking: Annotated[  # noqa: ARG001
        bool, typer.Option("--notrack", help="Accepted; nothing is tracked.")
    ] = False,
    version: Annotated[  # noqa: ARG001
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=print_version),
    ] = False,
) -> None:
    """Run as a BIDS-App: preprocess and embed participants; judge them as a group.

    Example: pipeline bids bids/ derivatives/ldae participant --participant-label 01 02 -w work
    """  # fmt: skip
    settings: Settings = context.obj
    from pipeline.bids_app.selection import check_dataset
    from pipeline.sources.bids_choice import read_filter_file
    from schemas.errors import ParamsError

    check_dataset(bids_dir)
    params = settings.params()
    if bids_filter_file is not None:
        wanted = dict(params.cohort.bids_filter) | read_filter_file(bids_filter_file)
        cohort = params.cohort.model_copy(update={"bids_filter": wanted})
        params = params.model_copy(update={"cohort": cohort})
    if level == "group":
        if participants or sessions:
            raise ParamsError(
                "bids: --participant-label and --session-label go with the participant level; the"
                " group level takes all that are finished"
            )
        _group(context, params, bids_dir, out_dir, work)
        return
    from pipeline.bids_app.participant_level import Request, run_participants, workers_within
    from pipeline.bids_app.selection import chosen_participants, chosen_sessions
    from pipeline.models.places import BUNDLED, BUNDLED_LDAE
    from pipeline.runtime.progress import counted

    chosen = chosen_participants(bids_dir, participants or [])
    summary = run_participants(
        Request(
            bids_dir=bids_dir.absolute(),
            out_dir=out_dir,
            work=work,
            participants=chosen,
            sessions=chosen_sessions(bids_dir, sessions, chosen) if sessions else [],
            params=params,
            autoencoder=ae or BUNDLED,
            ldae=ldae or BUNDLED_LDAE,
            workers=workers_within(cpus or settings.num_workers(), memory_mb),
        ),
        settings.device_name,
    )
    typer.echo(
        f"{out_dir}: {counted(summary.scans, 'scan')} of"
        f" {counted(len(chosen) - len(summary.failed), 'participant')}"
        f" ({summary.done_before} done before)"
    )
    for participant, why in summary.failed.items():
        typer.echo(f"{participant}: not finished: {why}", err=True)
    if summary.failed:
        raise typer.Exit(1)


def _group(
    context: typer.Context, params: "Params", bids_dir: Path, out_dir: Path, work: Path
) -> None:
    """Run the later stages on all finished participants, and write the group's part."""
    from pipeline.bids_app.group_level import gather
    from pipeline.bids_export.dataset import check_place
    from pipeline.bids_export.export import export_bids

    check_place(out_dir, bids_dir)
    files = gather(bids_dir.absolute(), work, params.cohort)
    _judge(context, files)
    summary = export_bids(files, out_dir)
    typer.echo(f"{out_dir}: {summary.scans} scans, report in {out_dir / 'report.html'}")


def _judge(context: typer.Context, files: "StudyFiles") -> None:
    """Run probe, scanner and report; what the data do not allow is said, and left out."""
    from pipeline.cohort.manifest import read_manifest
    from schemas.errors import PipelineError
    from schemas.manifest import SITE_COLUMNS
    from stages.probe import probe
    from stages.report import report
    from stages.scanner import scanner

    reports = files.report.parent
    stores = {
        "manifest": files.manifest,
        "semantics": files.semantics,
        "latents": files.volumes.with_name("latents.zarr"),
        "volumes": files.volumes,
    }
    site = next((c for c in SITE_COLUMNS if c in read_manifest(files.manifest)), None)
    try:
        probe(context, out=reports / "probe", **stores)
    except PipelineError as error:
        typer.echo(f"no probes: {error}", err=True)
    try:
        if site is not None:
            scanner(context, out=reports / "scanner", site=site, **stores)
    except PipelineError as error:
        typer.echo(f"no word on scanners: {error}", err=True)
    made = (reports / "probe" / "metrics.json").is_file()
    report(
        context,
        manifest=files.manifest,
        out=files.report,
        qc=files.qc,
        quarantine=files.qc.with_name("quarantine.csv"),
        volumes=files.volumes,
        probe=reports / "probe" if made else None,
    )
