"""A study folder about the tiny models, as `dvc.yaml` lays it out, with real probes."""

from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.encoding.embed import embed_latents
from pipeline.models.direction import write_directions
from pipeline.models.frozen import load_ldae
from pipeline.probes.protocols import fit_probes
from pipeline.probes.readouts import readouts_of
from pipeline.runtime.files import write_json, write_parquet
from pipeline.stores.latents import open_latents
from pipeline.stores.open_store import OpenStore
from schemas.evaluation import ProbeParams
from schemas.manifest import MANIFEST_COLUMNS
from schemas.params import EmbedParams
from tests.support.tiny_models import CPU

HOSTILE = '<script>alert("x")</script>'
"""A word in a column of the manifest."""
STEPS = 6
TOWARDS = "diagnosis:AD"
VISITS = ("sub-016", "sub-017", "sub-018")
"""Scans of one person."""


def explore_manifest(split: dict[str, list[str]]) -> pd.DataFrame:
    """Return people of two diagnoses, ages, and one with three visits."""
    rows = []
    for name, scans in split.items():
        for scan in scans:
            number = int(scan[4:])
            rows.append(
                dict.fromkeys(MANIFEST_COLUMNS, "x")
                | {"scan_id": scan, "subject_id": scan, "session_id": "ses-1", "split": name}
                | {"diagnosis": "AD" if number % 2 else "CN", "sex": "FM"[number % 3 > 0]}
                | {"age_years": 60.0 + number, "months_from_first": 0.0}
                | {"site": HOSTILE if number % 4 else "Lund"}
            )
    table = pd.DataFrame(rows)
    for months, scan in enumerate(VISITS):
        table.loc[table["scan_id"] == scan, ["subject_id", "months_from_first"]] = [
            VISITS[0],
            6.0 * months,
        ]
    return table


def make_explore_study(
    folder: Path, *, volumes: Path, latents: Path, ae: Path, ldae: Path, split: dict[str, list[str]]
) -> Path:
    """Write the study; stores and models are links."""
    for name, target in (("volumes.zarr", volumes), ("latents.zarr", latents)):
        (folder / "data").mkdir(exist_ok=True, parents=True)
        (folder / "data" / name).symlink_to(target)
    (folder / "models").mkdir()
    (folder / "models" / "ae").symlink_to(ae)
    (folder / "models" / "ldae").symlink_to(ldae)
    (folder / "params.yaml").write_text(f"evaluate: {{num_inference_steps: {STEPS}}}\n")
    table = explore_manifest(split)
    (folder / "data" / "cohort").mkdir()
    table.to_csv(folder / "data" / "cohort" / "manifest.csv", index=False)
    semantics = folder / "data" / "semantics.zarr"
    embed_latents(
        open_latents(latents), load_ldae(ldae, device=CPU), semantics, EmbedParams(), device=CPU
    )
    write_probes(folder, table)
    return folder


def write_probes(folder: Path, table: pd.DataFrame) -> None:
    """Fit the probes of the study and write what `pipeline probe` writes."""
    store = OpenStore(folder / "data" / "semantics.zarr", kind="semantics")
    y_sem = store.read("y_sem")[[store.row_of[scan] for scan in table["scan_id"]]]
    params = ProbeParams(bootstrap=20, folds=2, repeats=1, permutations=3, heads=(), oracle=())
    results = fit_probes({"y_sem": np.asarray(y_sem)}, table, params)
    out = folder / "reports" / "probe"
    write_json(out / "metrics.json", results.document().model_dump())
    write_parquet(out / "predictions.parquet", results.predictions)
    write_directions(
        out / "directions.json",
        results.directions,
        digests=store.attributes.digests,
        readouts=readouts_of(results),
    )
