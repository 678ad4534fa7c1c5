"""Write a study folder from templates: dvc.yaml and presets, of the wheel or the repository."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ruamel.yaml import YAML

from pipeline.runtime.files import write_atomic, writing_to
from pipeline.runtime.progress import few
from schemas.errors import ContractError, ParamsError
from schemas.manifest import OVERRIDE_COLUMNS
from schemas.params import Params
from stages.params_file import load_params, write_params
from stages.versioning import connect

if TYPE_CHECKING:
    import pandas as pd

CODE = ("stages/", "pipeline/", "schemas/")
STUDY_FILES = ("params.yaml", "dvc.yaml")
OVERRIDES = "qc_overrides.csv"
VOLUMES = "data/volumes.zarr"
RESOLUTIONS = (0.8, 4.0)
"""Range of voxel sizes (mm) of a new study."""
MULTIPLE = 8
"""Axes of a grid are multiples of it: downsampling factors of autoencoders divide it."""
Shared = Literal["latents", "volumes"]
"""What colleagues can pull: from the latents on, or the preprocessed volumes too."""


@dataclass(frozen=True, slots=True)
class Scaffolded:
    """A new study: the scans of its input, and what to tell the user."""

    scans: "pd.DataFrame | None"
    """The manifest that the input gives; None without an input."""
    told: list[str]
    """Sentences for the user."""


def template_folder() -> Path:
    """Return the folder of dvc.yaml and params/: inside the wheel, or the repository itself."""
    packaged = Path(__file__).with_name("templates")
    return packaged if packaged.is_dir() else Path(__file__).parents[1]


def preset_file(name: str) -> Path | None:
    """Return the file of a preset; None is the demo preset, the defaults themselves.

    Raises
    ------
    ParamsError
        If there is no such preset.
    """
    if name == "demo":
        return None
    path = template_folder() / "params" / f"{name}.yaml"
    if not path.is_file():
        known = ["demo", *sorted(p.stem for p in path.parent.glob("*.yaml"))]
        raise ParamsError(f"--preset {name}: expected one of {', '.join(known)}")
    return path


def scaffold(
    study: Path,
    *,
    preset: str,
    input_path: Path | None,
    overrides: list[str],
    force: bool,
    share: Shared = "latents",
    resolution: float | None = None,
) -> Scaffolded:
    """Write a study folder that `dvc repro` runs in, under git where it lies in a work tree.

    `share` says how far back DVC caches, and so pushes, what the stages make. `resolution` (mm)
    replaces the preset's voxel size.

    Raises
    ------
    ContractError
        If the folder already holds a study and `force` is off, or the input is none that `cohort`
        could take.
    ParamsError
        If the resolution is out of range, or the grid is set beside it.
    """
    for name in STUDY_FILES:
        if (study / name).exists() and not force:
            raise ContractError(f"{study / name}: exists; add --force to overwrite it")
    if resolution is not None:
        overrides = [*overrides, *_at_resolution(resolution, preset, overrides)]
    watched = manifest = None
    if input_path is not None:
        from pipeline.cohort.ingest import build_manifest
        from pipeline.sources.kind import detect_source

        source = detect_source(input_path)
        watched = _relative(input_path.resolve(), study.resolve())
        overrides = [f"cohort.source={source}", f"cohort.input={watched}", *overrides]
    params = load_params(preset_file(preset), overrides)
    if input_path is not None and params.cohort.source != "phantom":
        manifest = build_manifest(params.cohort, input_path=input_path, dry_run=True)[0]
    with writing_to(study):
        study.mkdir(parents=True, exist_ok=True)
    write_params(params, study / "params.yaml")
    _write_dvc(study / "dvc.yaml", watched, share)
    if not (study / OVERRIDES).exists():
        write_atomic(study / OVERRIDES, ",".join(OVERRIDE_COLUMNS) + "\n")
    return Scaffolded(manifest, connect(study, params.cohort.input))


def _at_resolution(zooms: float, preset: str, overrides: list[str]) -> list[str]:
    """Return the overrides that give the field of view of a preset voxels of this size (mm)."""
    low, high = RESOLUTIONS
    if not low <= zooms <= high:
        raise ParamsError(f"--resolution {zooms:g}: expected {low:g} to {high:g} mm")
    if any(override.startswith("preprocess.grid") for override in overrides):
        raise ParamsError("--resolution: --set preprocess.grid is given too; leave one of them out")
    params = load_params(preset_file(preset), overrides)
    grid = params.preprocess.grid
    shape = [MULTIPLE * math.ceil(n * grid.zooms / zooms / MULTIPLE - 1e-6) for n in grid.shape]
    # Generated heads are no coarser than what they are resampled onto.
    drawn = min(params.cohort.phantom.zooms, max(zooms, 1.0))
    return [
        f"preprocess.grid.shape={shape}",
        f"preprocess.grid.zooms={zooms:g}",
        f"cohort.phantom.zooms={drawn:g}",
    ]


def is_study(folder: Path) -> bool:
    """Return whether a folder holds a study already."""
    return all((folder / name).is_file() for name in STUDY_FILES)


def next_step(study: Path, preset: str) -> str:
    """Return the commands that follow: a study of published weights imports them, not trains."""
    if preset != "published":
        return f"cd {study} && dvc repro"
    grid = load_params(study / "params.yaml", []).preprocess.grid
    shape = " ".join(str(n) for n in grid.shape)
    return (
        f"cd {study}, and import the weights instead of training (so no dvc repro):"
        f" pipeline import-ae autoencoderkl.pth --zooms {grid.zooms:g} --shape {shape} --intensity"
        " minmax --out models/ae; pipeline import-ldae --decoder decoder.pth --encoder encoder.pth"
        " --ae models/ae --out models/ldae; then cohort, preprocess, encode and embed, as in"
        " docs/weights.md"
    )


def label_hint(manifest: "pd.DataFrame", params: Params) -> str | None:
    """Return what to change where the study's diagnoses are others than those compared."""
    compared = params.probe.classification.get("diagnosis")
    people = manifest.dropna(subset="diagnosis").astype({"diagnosis": str})
    values = people.groupby("diagnosis")["subject_id"].nunique()
    values = values.sort_values(ascending=False, kind="stable")
    direction = params.evaluate.manipulation.direction
    if values.empty and direction.startswith("diagnosis:"):
        told = f"no diagnosis in the input, and manipulation would move along {direction}"
        others = {"age_years": "age_years", "sex": "sex:M"}
        usable = {"age_years": manifest["age_years"].notna(), "sex": manifest["sex"] == "M"}
        known = [way for label, way in others.items() if usable[label].any()]
        if not known:
            return f"{told}: it will be left out, as will probes, until a table names labels"
        return (
            f"{told}: name another in params.yaml, evaluate.manipulation.direction"
            f" ({', '.join(known)})"
        )
    if compared is None or values.empty or set(compared) <= set(values.index):
        return None
    listed = few([f"{name} ({count})" for name, count in values.items()], 6)
    return (
        f"diagnosis holds {listed}, not {' and '.join(compared)} (counts of subjects): name the"
        " two to compare in params.yaml, probe.classification and evaluate.manipulation.direction"
    )


def _relative(target: Path, start: Path) -> str:
    """Return a path to the data as seen from the study; absolute where they share nothing."""
    try:
        return str(target.relative_to(start))
    except ValueError:
        return str(target)


def _write_dvc(path: Path, watched: str | None, share: Shared) -> None:
    """Write dvc.yaml without dependencies on code, which lives in the installed package."""
    yaml = YAML()
    yaml.width = 100
    pipeline = yaml.load((template_folder() / "dvc.yaml").read_text())
    for stage in pipeline["stages"].values():
        stage["deps"] = [d for d in stage["deps"] if not d.startswith(CODE)]
        if not stage["deps"]:
            del stage["deps"]
    if watched is not None:
        pipeline["stages"]["cohort"]["deps"] = [watched]
    if share == "volumes":
        # Without the records `preprocess` would not know what pulled volumes are made of.
        kept = (VOLUMES, f"{VOLUMES}.records.json")
        outs = pipeline["stages"]["preprocess"]["outs"]
        others = [out for out in outs if not (isinstance(out, dict) and VOLUMES in out)]
        pipeline["stages"]["preprocess"]["outs"] = [{n: {"persist": True}} for n in kept] + others
    with path.open("w") as file:
        yaml.dump(pipeline, file)
