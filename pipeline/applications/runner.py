"""One command over several scans: models loaded once, one bad scan never stops the others."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.applications.generated_volumes import Outcome
from pipeline.applications.inputs import (
    Source,
    identity_in_store,
    identity_of_file,
    preprocessing_for,
    seen_by,
    source_from_file,
    source_from_store,
)
from pipeline.applications.interpolate import interpolate
from pipeline.applications.output_files import Writer
from pipeline.applications.residual import blend, detail_of, with_detail, with_own_detail
from pipeline.applications.scan_names import check_names, is_image, scan_id_of
from pipeline.applications.time_points import Places
from pipeline.metrics.gaussianity import near_gaussian
from pipeline.models.inference import LdaeInference
from pipeline.runtime.progress import progress
from pipeline.stores.latents import LatentStore
from pipeline.stores.volumes import VolumeStore
from schemas.errors import ParamsError, PipelineError
from schemas.params import PreprocessParams

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opener:
    """Opens a scan id of the stores, or an image file, as a `Source`."""

    models: LdaeInference
    latents: LatentStore | None
    volumes: VolumeStore | None
    preprocess: PreprocessParams
    """For image files, where no volume store says how."""

    def open(self, name: str) -> Source:
        """Return one scan.

        Raises
        ------
        PipelineError
            If it cannot be used; the message says why.
        """
        if is_image(name):
            return source_from_file(Path(name), self.models, self._preprocessing())
        assert self.latents is not None
        return source_from_store(name, self.models, self.latents, self.volumes)

    def identity(self, name: str) -> dict[str, Any]:
        """Return what the record of a scan's `Source` will say of where it came from."""
        if is_image(name):
            return identity_of_file(Path(name), self._preprocessing())
        assert self.latents is not None
        return identity_in_store(name, self.latents, self.volumes)

    def _preprocessing(self) -> PreprocessParams:
        return preprocessing_for(
            self.models, self.preprocess, volumes=self.volumes, latents=self.latents
        )


def run_batch(
    names: Sequence[str],
    opener: Opener,
    writer: Writer,
    apply: Callable[[Source], Outcome],
    *,
    options: Mapping[str, Any] = MappingProxyType({}),
    detail: bool = False,
) -> list[str]:
    """Apply to every scan and write what comes out; returns the names of scans that failed.

    With `detail`, what the autoencoder cannot hold of a scan is added to all that is made of it.
    With one scan alone its error is raised. Scans whose files are there already, made by the same
    models of the same input with the same `options` (all that `apply` depends on), are left alone.
    """
    check_names(names, opener.latents)
    stems = Counter(scan_id_of(name) for name in names)
    stem, count = stems.most_common(1)[0]
    if count > 1:
        raise ParamsError(
            f"{stem}: given twice, and their files would have the same names; use one --out each"
        )
    writer.prepare()
    failed, kept = [], 0
    alone = len(names) == 1
    for name in names if alone else progress(names, total=len(names), label=writer.command):
        try:
            scan_id = scan_id_of(name)
            known = {"scan_id": scan_id, "options": dict(options) | {"detail": detail}}
            if writer.has(scan_id, known | {"input": opener.identity(name)}):
                kept += 1
                continue
            source = opener.open(name)
            writer.check(source)
            own = detail_of(opener.models, source) if detail else None
            outcome = apply(source)
            _warn_of_inversion(scan_id, outcome)
            if own is not None:
                outcome = with_own_detail(outcome, own)
            path = writer.write(
                outcome,
                stem=source.scan_id,
                record=known | {"input": source.record},
                source=source,
                reference=_compared(outcome, source, opener.models),
                watched=alone,
            )
            if alone:
                log.info("%s lists what was made", path)
        except (PipelineError, OSError) as error:
            if alone:
                raise
            # Errors of a file name it themselves.
            said = str(error).removeprefix(f"{name}: ")
            log.warning("%s: %s", name, said)
            failed.append(name)
    if kept:
        log.info("%s: %d scans were made already and kept", writer.out, kept)
    return failed


def run_pair(
    a: str, b: str, opener: Opener, writer: Writer, places: Places, *, detail: bool = False
) -> tuple[Path, bool]:
    """Interpolate between two scans; returns the JSON's path, and whether anything was made.

    Native space, brain mask and the picture's reference are those of scan a; the picture ends with
    b. With `detail`, what the autoencoder cannot hold of the two scans is blended and added. What a
    former run made of the same two is left alone.
    """
    check_names([a, b], opener.latents)
    stem = f"{scan_id_of(a)}_to_{scan_id_of(b)}"
    record = {
        "a": scan_id_of(a),
        "b": scan_id_of(b),
        "native_space_of": scan_id_of(a),
        "options": {"alphas": places.alphas, "months": places.months, "detail": detail},
    } | places.record
    known = record | {"input_a": opener.identity(a), "input_b": opener.identity(b)}
    if writer.has(stem, known):
        return writer.document(stem), False
    writer.prepare()
    first, second = opener.open(a), opener.open(b)
    writer.check(first)
    outcome = interpolate(
        opener.models,
        first.z_0,
        second.z_0,
        places.alphas,
        volumes=seen_by(first, second),
        extrapolate=places.extrapolate,
    )
    _warn_of_inversion(stem, outcome)
    if detail:
        ends = [detail_of(opener.models, source) for source in (first, second)]
        outcome = with_detail(
            outcome,
            lambda rows: np.stack([blend(ends[0], ends[1], a) for a in places.alphas[rows]]),
            "of both scans, blended",
        )
    for i, month in enumerate(places.months or []):
        outcome.details[i]["months"] = month
        outcome.labels[i] = f"months{month:g}"
    (title, volume), end = (reference_of(source, opener.models) for source in (first, second))
    path = writer.write(
        outcome,
        stem=stem,
        record=record | {"input_a": first.record, "input_b": second.record},
        source=first,
        reference=(f"a, {title}", volume),
        last=(f"b, {end[0]}", end[1]),
    )
    return path, True


def _warn_of_inversion(name: str, outcome: Outcome) -> None:
    health = outcome.record.get("inversion")
    if health is not None and not near_gaussian(health):
        log.warning(
            "%s: inverted x_T is not Gaussian (mean %.2f, std %.2f, kurtosis %.1f; noise has 0, 1,"
            " 3): judge edits with care",
            name,
            *(health[figure] for figure in ("mean", "std", "kurtosis")),
        )


def _compared(
    outcome: Outcome, source: Source, models: LdaeInference
) -> tuple[str, NDArray[np.float32]]:
    if outcome.beside is None:
        return reference_of(source, models)
    title, make = outcome.beside
    return title, make()[0].numpy()


def reference_of(source: Source, models: LdaeInference) -> tuple[str, NDArray[np.float32]]:
    """Return what pictures compare with: the preprocessed scan, or its decoded latent."""
    if source.volume is not None:
        return "input", source.volume
    return "decoded latent", models.decode(source.z_0)[0].numpy()
