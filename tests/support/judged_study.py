"""A study of tiny models, ready to be judged."""

import numpy as np
import pandas as pd
import pytest

from pipeline.models.direction import Direction, write_directions
from pipeline.models.inference import load_models
from pipeline.stores.latents import open_latents
from pipeline.study.study import Study
from schemas.evaluation import EvaluateParams, ProbeParams
from tests.support.tiny_models import CPU

PARAMS = EvaluateParams.model_validate(
    {
        "num_inference_steps": 4,
        "other_steps": (2,),
        "draws": 2,
        "bootstrap": 20,
        "manipulation": {"scales": (-1, 0, 1), "max_subjects": 2},
        "generation": {"count": 2},
    }
)


@pytest.fixture
def manifest(split):
    """Subjects of one scan each, but the first three of test are visits of one."""
    rows = [
        {
            "scan_id": scan,
            "subject_id": scan,
            "split": name,
            "months_from_first": 0.0,
            "diagnosis": ("CN", "AD")[int(scan[4:]) % 2],
        }
        for name, scans in split.items()
        for scan in scans
    ]
    table = pd.DataFrame(rows)
    visits = table.index[table["split"] == "test"][:3]
    table.loc[visits, "subject_id"] = "sub-visits"
    table.loc[visits, "months_from_first"] = [0.0, 6, 24]
    return table


@pytest.fixture
def study(volumes, latents_path, autoencoder_path, ldae_path, manifest, tmp_path):
    how = EvaluateParams(num_inference_steps=4, batch_size=4, precision="fp32")
    models = load_models(autoencoder_path, ldae_path, how, device=CPU)
    dim = models.ldae.config["encoder"]["dim"]
    weight = np.ones(dim) / np.sqrt(dim)
    along = Direction(weight, np.zeros(dim), np.ones(dim), 1.0, "diagnosis:AD")
    path = tmp_path / "directions.json"
    write_directions(path, {"diagnosis": along}, digests={"ldae": models.ldae.digest})
    return Study(
        models=models,
        volumes=volumes,
        latents=open_latents(latents_path),
        manifest=manifest,
        params=PARAMS,
        probe=ProbeParams(inner_folds=2),
        directions=path,
    )
