"""Are counterfactuals of the bundled models true? Phantoms moved to another severity.

python -m benchmarks.studies.true_counterfactuals OUT.csv

People of the preset `phantom`, drawn straight on the grid. A probe reads severity, or with
`--target diagnosis` AD against CN (severity overlaps between them), from the bundled LDAE's y_sem,
another from principal components of latents; other people are moved along the probe's pattern and
along its weight, as published, and held against the same head drawn with that severity. Beside them
the mean shift of latents with severity, and from CN to AD. No network saw any of them.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.applications.manipulate import manipulate
from pipeline.ground_truth.counterfactuals import NO_CHANGE, score_pair, summarise_pairs
from pipeline.ground_truth.phantom_pairs import true_pairs, with_severity
from pipeline.ground_truth.true_counterfactuals import scale_of_change
from pipeline.imaging.atlas.parcellation import desikan_killiany
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.bundled_ldae import find_ldae
from pipeline.models.direction import Direction
from pipeline.models.inference import load_models
from pipeline.phantom.registered import RegisteredPhantoms
from pipeline.phantom.subjects import make_subject
from pipeline.probes.features import fit_pca
from pipeline.probes.linear import LinearProbe, direction_of
from pipeline.probes.targets import make_target
from pipeline.regions.meter import RegionMeter
from pipeline.runtime.progress import progress
from schemas.evaluation import EvaluateParams, ProbeParams
from stages.params_file import load_params

CHANGES = (0.3, 0.6)


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fit", type=int, default=80)
    parser.add_argument("--judged", type=int, default=10)
    parser.add_argument("--target", choices=("severity", "diagnosis"), default="severity")
    parser.add_argument("--regions", type=int, default=6, help="people measured by region")
    parser.add_argument("--seed", type=int, default=5151)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    how = EvaluateParams(num_inference_steps=10, other_steps=(), precision="auto")
    models = load_models(bundled_autoencoder(), find_ldae(None)[0], how, device=torch.device("cpu"))
    phantoms = RegisteredPhantoms(models.autoencoder.grid)
    made_of = load_params(Path("params/phantom.yaml"), []).cohort.phantom
    made_of = made_of.model_copy(update={"subjects": asked.fit + asked.judged, "seed": asked.seed})
    people = [make_subject(n + 1, made_of) for n in range(made_of.subjects)]
    latents, codes = [], []
    for person in progress(people[: asked.fit], total=asked.fit, label="fitting people"):
        volume = phantoms.draw(with_severity(person, 0.0)).astype(np.float32) / 255
        z_0 = models.encode(torch.from_numpy(volume)[None])
        latents.append(models.unstandardise(z_0).flatten().numpy())
        codes.append(models.embed(z_0)[0].numpy())
    flat, y_sem = np.stack(latents), np.stack(codes)
    severity = np.array([person.atrophy for person in people[: asked.fit]])
    pca = fit_pca(flat)
    features = {"y_sem": y_sem, "pca_latents": pca.transform(flat)}
    table = pd.DataFrame(
        {
            "scan_id": [f"sub-{n}" for n in range(asked.fit)],
            "subject_id": [f"sub-{n}" for n in range(asked.fit)],
            "severity": severity,
            "diagnosis": [person.diagnosis for person in people[: asked.fit]],
            "split": "train",
        }
    )
    classes = ("CN", "AD") if asked.target == "diagnosis" else None
    target = make_target(asked.target, classes, features, table, ProbeParams())
    rows = target.rows_in(("train",))
    found: dict[str, Direction] = {}
    for name in features:
        probe = target.fit(name, rows)
        assert isinstance(probe, LinearProbe)
        direction = direction_of(probe, target.features[name][rows], asked.target)
        assert direction is not None
        found[name] = direction
        reads = np.corrcoef(direction.position(features[name]), severity)[0, 1]
        print(f"{name}: {len(rows)} people, place along the direction with severity r {reads:.2f}")
    rates = {
        name: scale_of_change(direction.position(features[name]), severity, direction)
        for name, direction in found.items()
    }
    weight_rates = {
        name: scale_of_change(direction.position(features[name]), severity, direction.of_weights)
        for name, direction in found.items()
    }
    groups = np.array([person.diagnosis for person in people[: asked.fit]])
    ends = [np.flatnonzero(groups == group) for group in ("CN", "AD")]
    apart = severity[ends[1]].mean() - severity[ends[0]].mean()
    steps = {
        "latent_shift": np.polyfit(severity, flat.astype(np.float64), 1)[0],
        "group_shift": (flat[ends[1]].mean(0) - flat[ends[0]].mean(0)) / apart,
    }
    along = found["pca_latents"]
    steps["pca_weight"] = weight_rates["pca_latents"] * along.of_weights.step @ pca.components_
    steps["pca"] = rates["pca_latents"] * along.step @ pca.components_
    meter = RegionMeter(
        parcellation=desikan_killiany(), grid=models.autoencoder.grid, own_regions=False
    )
    tables = []
    judged = progress(people[asked.fit :], total=asked.judged, label="judged people")
    for number, person in enumerate(judged):
        pairs = true_pairs(phantoms, person, CHANGES)
        own = torch.from_numpy(pairs[0].own)[None]
        z_0 = models.encode(own)
        mean = models.unstandardise(z_0)
        by_ldae = {
            name: manipulate(
                models, z_0, of, [change * rate for change in CHANGES], volume=own
            ).volumes.numpy()
            for name, of, rate in (
                ("ldae", found["y_sem"], rates["y_sem"]),
                ("ldae_weight", found["y_sem"].of_weights, weight_rates["y_sem"]),
            )
        }
        unmoved = models.decode(z_0)[0].numpy()
        for row, pair in enumerate(pairs):
            made = {name: volumes[row] for name, volumes in by_ldae.items()}
            for name, step in steps.items():
                moved = mean + torch.from_numpy(pair.change * step).float().reshape(mean.shape)
                made[name] = models.decode(models.standardise(moved))[0].numpy()
            by_region = meter if number < asked.regions and pair.change == CHANGES[-1] else None
            tables.append(score_pair(models, pair, made | {NO_CHANGE: unmoved}, by_region))
        pd.concat(tables).to_csv(asked.out, index=False)
    print(json.dumps(summarise_pairs(pd.concat(tables, ignore_index=True)), indent=1))


if __name__ == "__main__":
    main()
