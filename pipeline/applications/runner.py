"""Run an application over scans: models loaded once, one bad scan never stops the others."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.applications.generated_volumes import GeneratedVolumes, TitledVolume
from pipeline.applications.inputs import (
    InputScan,
    encoder_volumes,
    identity_in_store,
    identity_of_file,
    preprocessing_for,
    scan_from_file,
    scan_from_store,
)
from pipeline.applications.interpolate import interpolate
from pipeline.applications.nifti.output_files import PictureFrame, Writer
from pipeline.applications.residual import BlendedResidual, ScanResidual, add_residual, residual_of
from pipeline.applications.scan_names import check_names, is_image, scan_id_of
from pipeline.applications.time_points import InterpolationPoints
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
    """Opens a scan id of the stores, or an image file, as an `InputScan`."""

    models: LdaeInference
    latents: LatentStore | None
    volumes: VolumeStore | None
    preprocess: PreprocessParams
    """For image files, where no volume store says how."""

    def open(self, name: str) -> InputScan:
        """Return one scan.

        Raises
        ------
        PipelineError
            If it cannot be used; the message says why.
        """
        if is_image(name):
            return scan_from_file(Path(name), self.models, self._preprocessing())
        assert self.latents is not None
        return scan_from_store(name, self.models, self.latents, self.volumes)

    def identity(self, name: str) -> dict[str, Any]:
        """Return the `input` record of a scan, without opening it."""
        if is_image(name):
            return identity_of_file(Path(name), self._preprocessing())
        assert self.latents is not None
        return identity_in_store(name, self.latents, self.volumes)

    def _preprocessing(self) -> PreprocessParams:
        return preprocessing_for(
            self.models, self.preprocess, volumes=self.volumes, latents=self.latents
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanRun:
    """One application, run scan by scan."""

    opener: Opener
    writer: Writer
    apply: Callable[[InputScan], GeneratedVolumes]
    options: Mapping[str, Any]
    """All that `apply` depends on, beside the scan."""
    residual: bool
    """Add the autoencoder's residual of a scan to all volumes made of it."""
    watched: bool
    """Show progress, volume by volume, and where the JSON is."""

    def run(self, name: str) -> bool:
        """Write the volumes of one scan; return whether it had to be done.

        Raises
        ------
        PipelineError
            If the scan cannot be used; the message says why.
        """
        scan_id = scan_id_of(name)
        record = {"scan_id": scan_id, "options": {**self.options, "detail": self.residual}}
        if self.writer.has(scan_id, record | {"input": self.opener.identity(name)}):
            return False
        scan, models = self.opener.open(name), self.opener.models
        self.writer.check(scan)
        residual = ScanResidual(residual_of(models, scan)) if self.residual else None
        generated = self.apply(scan)
        warn_of_inversion(scan_id, generated)
        if residual is not None:
            generated = add_residual(generated, residual)
        path = self.writer.write(
            generated,
            stem=scan.scan_id,
            record=record | {"input": scan.record},
            scan=scan,
            frame=lambda: PictureFrame(generated.comparison() or reference_of(scan, models)),
            watched=self.watched,
        )
        if self.watched:
            log.info("%s lists what was made", path)
        return True


def run_batch(
    names: Sequence[str],
    opener: Opener,
    writer: Writer,
    apply: Callable[[InputScan], GeneratedVolumes],
    *,
    options: Mapping[str, Any] = MappingProxyType({}),
    detail: bool = False,
) -> list[str]:
    """Apply to every scan and write the volumes; return the names of scans that failed.

    With `detail`, the autoencoder's residual of a scan is added to all that is made of it. With one
    scan alone its error is raised. Scans whose files are there already, made by the same models of
    the same input with the same `options` (all that `apply` depends on), are left alone.
    """
    check_names(names, opener.latents)
    _check_stems(names)
    writer.prepare()
    failed, kept = [], 0
    alone = len(names) == 1
    scan_run = ScanRun(
        opener=opener,
        writer=writer,
        apply=apply,
        options=options,
        residual=detail,
        watched=alone,
    )
    for name in names if alone else progress(names, total=len(names), label=writer.command):
        try:
            kept += not scan_run.run(name)
        except (PipelineError, OSError) as error:
            if alone:
                raise
            # Errors of a file name it themselves.
            reason = str(error).removeprefix(f"{name}: ")
            log.warning("%s: %s", name, reason)
            failed.append(name)
    if kept:
        log.info("%s: %d scans were made already and kept", writer.out, kept)
    return failed


def _check_stems(names: Sequence[str]) -> None:
    """Refuse scans whose files would have the same names."""
    stem, count = Counter(scan_id_of(name) for name in names).most_common(1)[0]
    if count > 1:
        raise ParamsError(
            f"{stem}: given twice, and their files would have the same names; use one --out each"
        )


def run_pair(
    a: str,
    b: str,
    opener: Opener,
    writer: Writer,
    points: InterpolationPoints,
    *,
    detail: bool = False,
) -> tuple[Path, bool]:
    """Interpolate between two scans; return the JSON's path, and whether anything was made.

    Native space, brain mask and the picture's reference are those of scan a; the picture ends with
    b. With `detail`, the autoencoder's residuals of the two scans are blended and added. What a
    former run made of the same two is left alone.
    """
    check_names([a, b], opener.latents)
    stem = f"{scan_id_of(a)}_to_{scan_id_of(b)}"
    record = {
        "a": scan_id_of(a),
        "b": scan_id_of(b),
        "native_space_of": scan_id_of(a),
        "options": {"alphas": points.alphas, "months": points.months, "detail": detail},
    } | points.record
    known = record | {"input_a": opener.identity(a), "input_b": opener.identity(b)}
    if writer.has(stem, known):
        return writer.document(stem), False
    writer.prepare()
    models = opener.models
    first, last = opener.open(a), opener.open(b)
    writer.check(first)
    generated = interpolate(
        models,
        first.z_0,
        last.z_0,
        points.alphas,
        volumes=encoder_volumes(first, last),
    )
    warn_of_inversion(stem, generated)
    if detail:
        residuals = [residual_of(models, scan) for scan in (first, last)]
        blended = BlendedResidual(residuals[0], residuals[1], points.alphas)
        generated = add_residual(generated, blended)
    if points.months is not None:
        generated = _labelled_by_month(generated, points.months)
    path = writer.write(
        generated,
        stem=stem,
        record=record | {"input_a": first.record, "input_b": last.record},
        scan=first,
        frame=lambda: PictureFrame(_titled("a", first, models), _titled("b", last, models)),
    )
    return path, True


def _labelled_by_month(generated: GeneratedVolumes, months: Sequence[float]) -> GeneratedVolumes:
    details = [d | {"months": month} for d, month in zip(generated.details, months, strict=True)]
    labels = [f"months{month:g}" for month in months]
    return replace(generated, labels=labels, details=details)


def _titled(end: str, scan: InputScan, models: LdaeInference) -> TitledVolume:
    title, volume = reference_of(scan, models)
    return TitledVolume(f"{end}, {title}", volume)


def warn_of_inversion(name: str, generated: GeneratedVolumes) -> None:
    """Warn where the inverted x_T of a scan is far from noise."""
    health = generated.record.get("inversion")
    if health is not None and not near_gaussian(health):
        log.warning(
            "%s: inverted x_T is not Gaussian (mean %.2f, std %.2f, kurtosis %.1f; noise has 0, 1,"
            " 3): judge edits with care",
            name,
            *(health[figure] for figure in ("mean", "std", "kurtosis")),
        )


def reference_of(scan: InputScan, models: LdaeInference) -> TitledVolume:
    """Return what pictures compare with: the preprocessed scan, or its decoded latent."""
    if scan.volume is not None:
        return TitledVolume("input", scan.volume)
    return TitledVolume("decoded latent", models.decode(scan.z_0)[0].numpy())
