"""What the application commands share: their options, and opening models and stores."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stages.common_options import Settings

if TYPE_CHECKING:
    from pipeline.applications.generated_volumes import GeneratedVolumes
    from pipeline.applications.inputs import InputScan
    from pipeline.applications.output_files import Writer
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
LdaeFolder = Annotated[Path, typer.Option(help="Model of train-ldae.")]
Out = Annotated[Path, typer.Option(help="Folder for NIfTI, PNG and JSON.")]
Detail = Annotated[
    bool,
    typer.Option(
        "--detail",
        help="Add the scan's own fine detail, which the autoencoder cannot hold (needs its"
        " volume).",
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
    Literal["ddim", "dpm", "dpm_data"] | None,
    typer.Option("--sampler", help="Default: evaluate.sampler.", rich_help_panel=SAMPLER_PANEL),
]
Seed = Annotated[
    int,
    typer.Option(
        help="Seed of everything drawn at random: x_T of vary and generate, y_sem of a prior.",
        rich_help_panel=SAMPLER_PANEL,
    ),
]


_SCANS: dict[str, tuple[Any, Any]] = {
    "scans": (Scans, None),
    "inputs": (Inputs, None),
    "list_file": (ListFile, None),
}
_STORES: dict[str, tuple[Any, Any]] = {
    "latents": (Latents, None),
    "volumes": (Volumes, None),
    "space": (SpaceOption, "mni"),
}
_MODELS: dict[str, tuple[Any, Any]] = {
    "ae": (Ae, None),
    "ldae": (LdaeFolder, Path("models/ldae")),
    "out": (Out, inspect.Parameter.empty),
    "steps": (Steps, None),
    "sampler": (SamplerName, None),
    "seed": (Seed, 0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Models, the stores' door and the writer of one invocation."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The shared options of one invocation."""

    settings: Settings
    command: str
    options: dict[str, Any]

    def scan_names(self) -> list[str]:
        """Return every scan asked for, ids and files alike.

        Raises
        ------
        ParamsError
            If there is none, or the list is missing or an input is no image file.
        """
        return scan_names(*(self.options[name] for name in _SCANS))

    def open(self, *names: str, variant: str = "") -> Bench:
        """Open the stores and load the models; `variant` becomes part of the files' names.

        Scans that are nowhere are refused before anything slow happens.
        """
        from pipeline.applications.scan_names import check_names
        from pipeline.models.artefact import check_artefact
        from pipeline.stores.latents import open_latents
        from pipeline.stores.volumes import open_volumes
        from stages.requested_settings import refuse_grid, refuse_other

        params, given = self.settings.params(), self.options
        latents_path, volumes_path = given.get("latents"), given.get("volumes")
        latents = open_latents(latents_path) if latents_path else None
        volumes = open_volumes(volumes_path) if volumes_path else None
        if volumes is not None:
            recorded = volumes.attributes.params.get("preprocess", {})
            own = {"qc", "max_bytes"}  # thresholds of the new image alone
            refuse_other(self.settings, "preprocess", recorded, where=str(volumes_path), but=own)
        check_names(names, latents)
        check_artefact(given["ldae"], kind="ldae")

        from pipeline.applications.output_files import Writer
        from pipeline.applications.runner import Opener
        from pipeline.models.inference import load_models
        from stages.requested_settings import chosen_autoencoder

        asked = {"sampler": given["sampler"], "num_inference_steps": given["steps"]}
        # Other numbers of steps are for the evaluation alone.
        asked |= {"other_steps": ()}
        changes = {name: value for name, value in asked.items() if value is not None}
        models = load_models(
            chosen_autoencoder(self.settings, given["ae"])[0],
            given["ldae"],
            params.evaluate.model_copy(update=changes),
            device=self.settings.device(),
        )
        refuse_grid(self.settings, models.autoencoder.grid)
        # Of several scans, each on its own, the scans themselves are counted.
        one = len(names) <= 1 or "list_file" not in given
        models = replace(models, watched=one)
        opener = Opener(
            models=models, latents=latents, volumes=volumes, preprocess=params.preprocess
        )
        space = given.get("space", "mni")
        writer = Writer(
            out=given["out"], command=self.command, space=space, models=models, variant=variant
        )
        return Bench(models=models, opener=opener, writer=writer)


def application(
    takes: Literal["scans", "stores", "models"],
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give f(request, *, own options) the options that application commands share.

    `scans` are all of them; `stores` leaves out the list of scans, `models` the stores too.
    """
    shared = _MODELS
    if takes != "models":
        shared = _STORES | shared
    if takes == "scans":
        shared = _SCANS | shared

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function).parameters.values())[1:]
        names = [(name, *option) for name, option in shared.items()]
        parameters = [
            inspect.Parameter("settings", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            *own,
            *(
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
                )
                for name, annotation, default in names
            ),
        ]

        @functools.wraps(function)
        def wrapper(settings: Settings, **options: Any) -> None:
            given = {name: options.pop(name) for name in shared}
            request = Request(settings=settings, command=function.__name__, options=given)
            function(request, **options)

        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return wrapper

    return decorate


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
    from pipeline.sources.folder_source import SUFFIXES
    from schemas.errors import ParamsError

    for path in inputs or []:
        if not is_image(str(path)):
            raise ParamsError(f"--input {path}: expected an image file ({', '.join(SUFFIXES)})")
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
