"""Is a person recognised from y_sem? Find a person's other scan among those of all other people.

A query is the first scan of a judged person. Its candidates are one scan of every other judged
person, and one more of the query's own: another visit, or, where there is none, a copy of the
volume that is turned, stretched, blurred and of other contrast, encoded like any scan. The query
itself is never a candidate. With N people a guess is right once in N.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from pipeline.cohort.subjects import spread
from pipeline.evaluation.draws import DrawnBrains
from pipeline.imaging.augment import augment
from pipeline.metrics.identification import cosine_distances, match_rank
from pipeline.metrics.intervals import exact_share, share_interval
from pipeline.nets.semantic import DeviationEncoder
from pipeline.rivals.latent_pca import LatentPca
from pipeline.rivals.nearest_latents import MAX_LATENTS
from pipeline.runtime.digests import seed_from
from pipeline.runtime.progress import Progress
from pipeline.study.study import Part, Study, of_many_subjects

Floats = NDArray[np.float64]

METHODS = ("y_sem", "mode_amounts", "tissue_amounts", "pca_latents", "scan", "decoded_y_sem")
"""By y_sem; by its modes alone; by as many principal components of the latents; by the voxels of
the scan itself, which bounds the next; by the brain decoded from y_sem."""
FEWEST_PEOPLE = 2
COPY_STRENGTH = 0.15
"""Of `augment`, which changes a head by more than registration leaves of another scan of it. With
it copies of seven phantoms differ from their scan by 0.37 of what the nearest other phantom does
(mean squared difference in the brain, median), their second visits by 0.16."""

Kind = Literal["visit", "copy"]


@dataclass(frozen=True, slots=True)
class Query:
    """A judged person: the scan that is looked for, and what should be found."""

    subject_id: str
    scan_id: str
    match_id: str | None
    """Another scan of the person; None if a copy stands for it."""

    @property
    def kind(self) -> Kind:
        """Return what the match is."""
        return "copy" if self.match_id is None else "visit"


@dataclass(frozen=True, slots=True)
class Representation:
    """What scans are compared by, (person, dim): queries, and the match of each."""

    queries: Floats
    matches: Floats


def evaluate_identification(study: Study) -> Part:
    """Return rank-1 rate and mean reciprocal rank by y_sem, by PCA and by the decoded brain."""
    people = queries_of(study.judged)
    if len(people) < FEWEST_PEOPLE:
        return Part(metrics={"skipped": f"fewer than {FEWEST_PEOPLE} judged people"})
    copies = _copies(study, people)
    rows = []
    for method, representation in _representations(study, people, copies).items():
        distances = cosine_distances(representation.queries, representation.matches)
        rows += _rows(method, people, *distances)
    rows += _voxel_rows(study, people, copies)
    table = pd.DataFrame(rows)
    return Part(
        metrics={
            "people": len(people),
            "chance": 1 / len(people),
            "copy_strength": COPY_STRENGTH,
            "kinds": _summary(table),
        },
        per_scan=table,
    )


def queries_of(judged: pd.DataFrame) -> list[Query]:
    """Return each person's first scan with the next one of that person, in order of the manifest.

    A second scan of one session serves where there is no later one.
    """
    queries = []
    for subject, scans in judged.groupby(judged["subject_id"].astype(str), sort=False):
        months = pd.to_numeric(
            scans.get("months_from_first", pd.Series(0.0, index=scans.index)), errors="coerce"
        )
        ordered = scans.iloc[np.argsort(months.fillna(np.inf).to_numpy(), kind="stable")]
        scan_ids = ordered["scan_id"].astype(str).tolist()
        queries.append(Query(str(subject), scan_ids[0], next(iter(scan_ids[1:]), None)))
    return queries


def copy_of(volume: Float[Tensor, "X Y Z"], scan_id: str) -> Float[Tensor, "X Y Z"]:
    """Return a changed copy of a volume in [0, 1]; which, the scan's id decides."""
    generator = torch.Generator().manual_seed(seed_from("copy", scan_id))
    changed: Tensor = augment(volume[None, None], 1.0, generator, strength=COPY_STRENGTH)[0, 0]
    return changed


def _copies(study: Study, people: list[Query]) -> dict[str, Tensor]:
    """Return the copies of scans without another visit, as the store would have them: uint8."""
    copies = {}
    for query in people:
        if query.match_id is None:
            volume = study.volumes.load_unit_interval([query.scan_id])[0, 0]
            copies[query.scan_id] = (copy_of(volume, query.scan_id) * 255).round().byte()
    return copies


def _representations(
    study: Study, people: list[Query], copies: Mapping[str, Tensor]
) -> dict[str, Representation]:
    """Return y_sem and principal components, both from the mean over training scans."""
    models, size = study.models, study.params.batch_size
    pca = LatentPca.of_training(study.latents, study.scans, models.ldae.net.encoder.dim)
    codes: list[tuple[Tensor, Tensor]] = []
    scores: list[tuple[Tensor, Tensor]] = []
    with Progress("identification", total=len(people)) as bar:
        for start in range(0, len(people), size):
            batch = people[start : start + size]
            ids = [query.scan_id for query in batch]
            z_0 = study.z_0(ids)
            matched, volumes = _matches(study, batch, copies)
            codes.append(
                (models.embed(z_0, study.encoder_volumes(ids)), models.embed(matched, volumes))
            )
            if pca is not None:
                pair = (pca.scores(models.unstandardise(z).cpu()) for z in (z_0, matched))
                scores.append((next(pair), next(pair)))
            for _ in batch:
                bar.advance()
    y_sem = _about_the_mean(study, _joined(codes))
    found = {"y_sem": y_sem}
    encoder = models.ldae.net.encoder
    parts = encoder.parts() if isinstance(encoder, DeviationEncoder) else {}
    for name, part in parts.items():
        if name != "summary":
            both = (y_sem.queries[:, part], y_sem.matches[:, part])
            found[f"{name.removesuffix('s')}_amounts"] = Representation(*both)
    return found | ({"pca_latents": _joined(scores)} if scores else {})


def _joined(parts: list[tuple[Tensor, Tensor]]) -> Representation:
    queries, matches = (torch.cat(side).double().cpu().numpy() for side in zip(*parts, strict=True))
    return Representation(queries, matches)


def _about_the_mean(study: Study, y_sem: Representation) -> Representation:
    """Return codes from the mean of training scans, in the sizes that their parts have.

    Amounts of modes fall off in size, and the last ones are mostly noise, which standard deviations
    would blow up. A code without modes is measured in those.
    """
    train = spread(study.scans[study.scans["split"] == "train"], MAX_LATENTS)
    if len(train) < 2:
        return y_sem
    known = study.y_sem(list(train["scan_id"].astype(str))).double().cpu().numpy()
    mean, unit = known.mean(0), np.ones(known.shape[1])
    if not study.models.has_modes:
        deviation = known.std(0)
        unit = np.where(deviation > 1e-3 * deviation.max(), deviation, np.inf)
    return Representation((y_sem.queries - mean) / unit, (y_sem.matches - mean) / unit)


def _matches(
    study: Study, batch: list[Query], copies: Mapping[str, Tensor]
) -> tuple[Float[Tensor, "B C X Y Z"], Float[Tensor, "B X Y Z"] | None]:
    """Return z_0 of the matches, and their volumes where the semantic encoder reads those."""
    latents, volumes = [], []
    for query in batch:
        if query.match_id is None:
            volume = copies[query.scan_id][None].float() / 255
            latents.append(study.models.encode(volume))
            volumes.append(volume)
        else:
            latents.append(study.z_0([query.match_id]))
            read = study.encoder_volumes([query.match_id])
            volumes += [] if read is None else [read]
    return torch.cat(latents), torch.cat(volumes) if study.models.reads_volumes else None


def _voxel_rows(
    study: Study, people: list[Query], copies: Mapping[str, Tensor]
) -> list[dict[str, Any]]:
    """Return ranks by voxels: of the query itself, and of the mean brain decoded from its y_sem.

    Both are held against the others' scans and the match, where any of the scans has brain. At most
    `evaluate.max_scans` queries, those that reconstruction judges, among everybody.
    """
    chosen = of_many_subjects(study.judged, study.params.max_scans)["subject_id"].astype(str)
    asked = [i for i, query in enumerate(people) if query.subject_id in set(chosen)]
    queries = {"scan": [_scan(study, people[i].scan_id) for i in asked]}
    if study.params.draws:
        size = study.params.batch_size
        scan_ids = [people[i].scan_id for i in asked]
        queries["decoded_y_sem"] = [
            volume.flatten()
            for start in range(0, len(scan_ids), size)
            for volume in DrawnBrains(study).means(scan_ids[start : start + size])
        ]
    brain = torch.zeros_like(queries["scan"][0], dtype=torch.bool)
    for query in people:
        brain |= _scan(study, query.scan_id) > 0
    rows = []
    for method, volumes in queries.items():
        brains = torch.stack(volumes)[:, brain]
        to_others = [_difference(brains, _scan(study, query.scan_id)[brain]) for query in people]
        matches = torch.stack([_match(study, people[i], copies) for i in asked])[:, brain]
        to_match = _difference(brains, matches)
        rows += _rows(method, people, np.stack(to_others, axis=1), to_match, asked)
    return rows


def _scan(study: Study, scan_id: str) -> Float[Tensor, " voxel"]:
    return study.volumes.load_unit_interval([scan_id]).flatten()


def _match(study: Study, query: Query, copies: Mapping[str, Tensor]) -> Float[Tensor, " voxel"]:
    if query.match_id is not None:
        return _scan(study, query.match_id)
    return copies[query.scan_id].flatten().float() / 255


def _difference(brains: Float[Tensor, "B voxel"], scans: Float[Tensor, "... voxel"]) -> Floats:
    """Return mean squared differences (B,)."""
    squares: Floats = (brains - scans).square().mean(dim=1).double().numpy()
    return squares


def _rows(
    method: str,
    people: list[Query],
    to_others: Floats,
    to_match: Floats,
    asked: list[int] | None = None,
) -> list[dict[str, Any]]:
    """Return one row a query: the rank of its match among the others' scans."""
    rows = []
    for row, i in enumerate(range(len(people)) if asked is None else asked):
        others = np.delete(to_others[row], i)
        rows.append(
            {
                "scan_id": people[i].scan_id,
                "subject_id": people[i].subject_id,
                "match": people[i].match_id or "copy",
                "kind": people[i].kind,
                "method": method,
                "rank": match_rank(others, to_match[row]),
                "candidates": len(others) + 1,
            }
        )
    return rows


def _summary(table: pd.DataFrame) -> dict[str, Any]:
    """Return {kind: {method: {rank_1, mean_reciprocal_rank}}}."""
    kinds: dict[str, Any] = {}
    for (kind, method), rows in table.groupby(["kind", "method"], sort=False):
        subjects, rank = rows["subject_id"].to_numpy(), rows["rank"].to_numpy()
        kinds.setdefault(str(kind), {})[str(method)] = {
            "rank_1": exact_share(rank == 1).model_dump(),
            "mean_reciprocal_rank": share_interval(1 / rank, subjects).model_dump(),
        }
    return kinds
