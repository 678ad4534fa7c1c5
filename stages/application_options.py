"""Options that application commands share, and the models and stores that they open.

A command lists each option that it takes in its own signature, by the names below, and hands them
to `open_application`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stages.common_options import Settings

if TYPE_CHECKING:
    from pipeline.applications.generated_volumes import GeneratedVolumes
    from pipeline.applications.inputs import InputScan
    from pipeline.applications.nifti.output_files import Writer
    from pipeline.applications.runner import Opener
    from pipeline.models.inference import LdaeInference

INPUT_PANEL = "Scans"
SAMPLER_PANEL = "Sampler"

Scans = Annotated[
    list[str] | None,
    typer.Option(
        "--scan", help="Scan id in --latents; may be repeated.", rich_help_panel=INPUT_PANEL
    ),
]
Inputs = Annotated[
    list[Path] | None,
    typer.Option(
        "--input",
        help="New image file: preprocessed (as --volumes were), checked and encoded first;"
        " may be repeated.",
        rich_help_panel=INPUT_PANEL,
    ),
]
ListFile = Annotated[
    Path | None,
    typer.Option(
        "--list",
        help="Text file of scan ids or image files, one a line; # starts a comment.",
        rich_help_panel=INPUT_PANEL,
    ),
]
Latents = Annotated[
    Path | None,
    typer.Option(help="latents.zarr that holds the scans.", rich_help_panel=INPUT_PANEL),
]
Volumes = Annotated[
    Path | None,
    typer.Option(
        help="volumes.zarr of the same study: for --space native, and to compare with.",
        rich_help_panel=INPUT_PANEL,
    ),
]
Ae = Annotated[
    Path | None,
    typer.Option(help="Autoencoder folder; default: models/ae, else the bundled one."),
]
LdaeFolder = Annotated[
    Path | None,
    typer.Option(help="Model of train-ldae; default: models/ldae, else the bundled one."),
]
Out = Annotated[Path, typer.Option(help="Folder for NIfTI, PNG and JSON.")]
Detail = Annotated[
    bool,
    typer.Option(
        "--detail",
        help="Add the scan's own fine detail, which the autoencoder cannot hold (needs its"
        " volume).",
    ),
]
Regions = Annotated[
    bool,
    typer.Option(
        "--regions",
        help="Measure all that is made in --out by brain region too, as `pipeline regions` does:"
        " some seconds a volume.",
    ),
]
SpaceOption = Annotated[
    Literal["mni", "native"],
    typer.Option(help="Write on the MNI152 grid, or back on the scan's own grid and intensities."),
]
Steps = Annotated[
    int | None,
    typer.Option(
        help="Sampler steps; default: evaluate.num_inference_steps.", rich_help_panel=SAMPLER_PANEL
    ),
]
SamplerName = Annotated[
    Literal["ddim", "dpm", "dpm_data", "dpm3"] | None,
    typer.Option("--sampler", help="Default: evaluate.sampler.", rich_help_panel=SAMPLER_PANEL),
]
Seed = Annotated[
    int,
    typer.Option(
        help="Seed of everything drawn at random: x_T of vary and generate, y_sem of a prior.",
        rich_help_panel=SAMPLER_PANEL,
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationRun:
    """The models, scans and output folder of one application command."""

    models: "LdaeInference"
    opener: "Opener"
    writer: "Writer"

    def run(
        self,
        names: list[str],
        apply: "Callable[[InputScan], GeneratedVolumes]",
        *,
        detail: bool = False,
        **options: object,
    ) -> None:
        """Apply to every scan; exit code 1 if some of several failed.

        `detail` adds each scan's own to what is made of it. `options` are what `apply` depends on
        beside the scan: scans made with them are kept.
        """
        from pipeline.applications.runner import run_batch

        failed = run_batch(names, self.opener, self.writer, apply, options=options, detail=detail)
        typer.echo(f"{self.writer.out}: {len(names) - len(failed)} of {len(names)} scans")
        if failed:
            typer.echo(f"failed: {', '.join(failed)}", err=True)
            raise typer.Exit(1)


def chosen_ldae(given: Path | None) -> Path:
    """Return the folder of the LDAE to use; say which, unless it was given."""
    if given is not None:
        return given
    from pipeline.models.bundled_ldae import find_ldae  # it brings torch

    folder, which = find_ldae(None)
    typer.echo(f"LDAE: {which}")
    return folder


def refuse_unknown(names: list[str], latents: Path | None) -> None:
    """Refuse scans that cannot be opened, before anything slow is loaded."""
    from pipeline.applications.scan_names import check_names
    from pipeline.stores.latents import open_latents

    check_names(names, open_latents(latents) if latents else None)


def open_application(
    settings: Settings,
    command: str,
    names: list[str],
    *,
    ae: Path | None,
    ldae: Path | None,
    out: Path,
    steps: int | None,
    sampler: str | None,
    latents: Path | None = None,
    volumes: Path | None = None,
    space: Literal["mni", "native"] = "mni",
    variant: str = "",
    scan_by_scan: bool = True,
) -> ApplicationRun:
    """Open the stores and load the models for scans, by the options that the commands share.

    `variant` becomes part of the files' names. `scan_by_scan`: several scans are worked on one
    after the other, so that progress counts scans and not the steps of each. Unknown scans are
    refused before the models are loaded.
    """
    from pipeline.applications.scan_names import check_names
    from pipeline.models.model_folder import check_artefact
    from pipeline.stores.latents import open_latents
    from pipeline.stores.volumes import open_volumes
    from stages.requested_settings import refuse_grid, refuse_other

    params = settings.params()
    latent_store = open_latents(latents) if latents else None
    volume_store = open_volumes(volumes) if volumes else None
    if volume_store is not None:
        recorded = volume_store.attributes.params.get("preprocess", {})
        of_new_images = {"qc", "max_bytes"}
        refuse_other(settings, "preprocess", recorded, where=str(volumes), but=of_new_images)
    check_names(names, latent_store)
    ldae = chosen_ldae(ldae)
    check_artefact(ldae, kind="ldae")

    from pipeline.applications.nifti.output_files import Writer
    from pipeline.applications.runner import Opener
    from pipeline.models.inference import load_models
    from stages.chosen_autoencoder import chosen_autoencoder

    # Other numbers of steps are for the evaluation alone.
    changes: dict[str, Any] = {"other_steps": ()}
    changes |= {} if sampler is None else {"sampler": sampler}
    changes |= {} if steps is None else {"num_inference_steps": steps}
    models = load_models(
        chosen_autoencoder(settings, ae)[0],
        ldae,
        params.evaluate.model_copy(update=changes),
        device=settings.device(),
        store=latent_store or volume_store,
    )
    refuse_grid(settings, models.autoencoder.grid)
    models = replace(models, watched=len(names) <= 1 or not scan_by_scan)
    return ApplicationRun(
        models=models,
        opener=Opener(
            models=models, latents=latent_store, volumes=volume_store, preprocess=params.preprocess
        ),
        writer=Writer(out=out, command=command, space=space, models=models, variant=variant),
    )


def scan_names(
    scans: list[str] | None, inputs: list[Path] | None, list_file: Path | None
) -> list[str]:
    """Return every scan asked for, ids and files alike.

    Raises
    ------
    ParamsError
        If there is none, or the list is missing or an input is no image file.
    """
    from pipeline.applications.scan_names import is_image
    from pipeline.sources.file_kinds import READ
    from schemas.errors import ParamsError

    for path in inputs or []:
        if not is_image(str(path)):
            raise ParamsError(f"--input {path}: expected an image file ({', '.join(READ)})")
    names = [*(scans or []), *(str(path) for path in inputs or [])]
    if list_file is not None:
        try:
            lines = list_file.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ParamsError(f"--list {list_file}: not a readable text file") from error
        names += [name for line in lines if (name := line.split("#")[0].strip())]
    if not names:
        raise ParamsError("no scan given; use --scan ID, --input FILE or --list FILE")
    return names
