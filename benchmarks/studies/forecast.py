"""Forecasts of phantoms' last visits: errors, and how often the 90 % interval holds the visit.

Phantoms of a seed of their own, drawn on the bundled grid, all with follow-ups. Those of FIT tell
how y_sem, latents and voxels change; those of JUDGED are foreseen at their last visit, with the
bundled models. `python -m benchmarks.studies.forecast OUT.csv --fit 24 --judged 12`.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.applications.inputs import InputScan
from pipeline.forecasting.learned import Learned
from pipeline.forecasting.methods import FutureVisit, foresee
from pipeline.forecasting.scores import score_visit, summarise_forecasts
from pipeline.measurement.course import fit_course
from pipeline.measurement.region_intervals import fit_region_intervals
from pipeline.models.bundled import bundled_autoencoder
from pipeline.models.bundled_ldae import find_ldae
from pipeline.models.inference import LdaeInference, load_models
from pipeline.phantom.registered import RegisteredPhantoms
from pipeline.phantom.subjects import Visit, make_subject, make_visits
from pipeline.regions.lobes import LobeMeter
from schemas.evaluation import EvaluateParams
from schemas.params import PhantomParams

SEED = 7118


def drawn(phantoms: RegisteredPhantoms, models: LdaeInference, visit: Visit) -> InputScan:
    """Return a phantom's visit as a scan."""
    volume = (phantoms.draw(visit) / np.float32(255)).astype(np.float32)
    z_0 = models.encode(torch.from_numpy(volume)[None])
    return InputScan(scan_id=visit.scan_id, z_0=z_0, volume=volume, native=None, record={})


def learned_of(models: LdaeInference, scans: list[InputScan], visits: list[Visit]) -> Learned:
    """Return what the fitting people tell."""
    months = np.array([visit.months for visit in visits], float)
    people = [visit.subject.subject_id for visit in visits]
    codes = np.concatenate([models.embed(scan.z_0).double().numpy() for scan in scans])
    latents = np.stack([scan.z_0.flatten().double().numpy() for scan in scans])
    voxels = np.stack(
        [scan.volume.ravel().astype(np.float64) for scan in scans if scan.volume is not None]
    )
    rate = fit_course(voxels, months, people).rate.astype(np.float32)
    shape = models.autoencoder.grid.shape
    meter = LobeMeter(models.autoencoder.grid)
    measures = [meter.measure(scan.volume) for scan in scans if scan.volume is not None]
    return Learned(
        y_sem=fit_course(codes, months, people),
        latent=fit_course(latents, months, people),
        voxel_rate=rate.reshape(shape),
        intervals=fit_region_intervals(measures, months, people),
    )


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--fit", type=int, default=24)
    parser.add_argument("--judged", type=int, default=12)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--draws", type=int, default=16)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    params = EvaluateParams(num_inference_steps=asked.steps, other_steps=())
    models = load_models(
        bundled_autoencoder(), find_ldae(None)[0], params, device=torch.device("cpu")
    )
    grid = models.autoencoder.grid
    phantoms, meter = RegisteredPhantoms(grid), LobeMeter(grid)
    many = PhantomParams(subjects=asked.fit + asked.judged, seed=SEED, multi_visit_share=1.0)
    people = [make_visits(make_subject(n + 1, many)) for n in range(many.subjects)]
    visits = [visit for own in people[: asked.fit] for visit in own]
    scans = [drawn(phantoms, models, visit) for visit in visits]
    learned = learned_of(models, scans, visits)
    course = learned.y_sem
    print(f"y_sem: noise {course.noise:.3g}, own slopes {course.own:.3g} a month²", flush=True)
    tables = []
    for number, own in enumerate(people[asked.fit :]):
        future = FutureVisit(
            subject_id=own[0].subject.subject_id,
            earlier=[drawn(phantoms, models, visit) for visit in own[:-1]],
            months=[float(visit.months) for visit in own[:-1]],
            target_id=own[-1].scan_id,
            target_month=float(own[-1].months),
        )
        target = drawn(phantoms, models, own[-1])
        assert target.volume is not None
        began = time.process_time()
        foreseen = foresee(models, future, learned, draws=asked.draws, seed=0)
        seconds = time.process_time() - began
        truths = {"scan": target.volume, "decoded": models.decode(target.z_0)[0].numpy()}
        tables.append(score_visit(future, foreseen, truths, meter, intervals=learned.intervals))
        pd.concat(tables).to_csv(asked.out, index=False)
        print(f"{number + 1} of {asked.judged}: {seconds:.1f} CPU s", flush=True)
    print(json.dumps(summarise_forecasts(pd.concat(tables, ignore_index=True)), indent=1))


if __name__ == "__main__":
    main()
