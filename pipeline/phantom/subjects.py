"""Subjects of the phantom cohort: people, their visits, and the changes of their brains.

Everything about a subject follows from the cohort seed and the subject's number, so a cohort of
ten holds the first ten people of a cohort of a thousand.
"""

from dataclasses import dataclass, replace

import numpy as np

from pipeline.phantom.scanner_models import ScannerModel, make_scanner
from pipeline.runtime.digests import seed_from
from schemas.params import PhantomParams

DIAGNOSES = ("CN",) * 8 + ("MCI",) * 5 + ("AD",) * 7
"""Diagnosis at the first visit within each block of twenty subjects: 40, 25 and 35 %."""
AGES = (55.0, 90.0)
"""Range of age (years) at the first visit."""
SCHEDULES = ((0, 12), (0, 6, 12), (0, 12, 24), (0, 6, 12, 24))
"""Months of the visits of subjects with follow-ups."""
CONVERSION = 0.78
"""Atrophy at which a visit's diagnosis becomes AD."""
SEVERITY = {"CN": (0.12, 0.08), "MCI": (0.52, 0.14), "AD": (1.0, 0.16)}
"""Mean and standard deviation of atrophy at the first visit."""
OVERLAPPING_SEVERITY = {"CN": (0.42, 0.29), "MCI": (0.63, 0.29), "AD": (0.845, 0.29)}
"""The same with `overlap`: true atrophy itself tells AD from CN with a ROC-AUC of 0.85."""
OVERLAPPING_CONVERSION = 0.26
"""Rise of atrophy at which a visit's diagnosis becomes AD, with `overlap`."""
SIZES = {"M": 0.957, "F": 0.925}
"""Linear size of the head relative to the template."""
SIZE_SD, OVERLAPPING_SIZE_SD = 0.014, 0.030
"""Spread of the logarithm of size within a sex, and with `sex_overlap`."""
SEX_AMPLITUDE, OVERLAPPING_SEX_AMPLITUDE = 0.09, 0.018
"""Amplitude of the anatomy of men, its negative that of women; 0.03 is its spread."""
FOCAL_SHARE = 0.5
"""Share of people with the dark spot, where `focal` is not 0."""


@dataclass(frozen=True)
class Subject:
    """One person; atrophy is the severity of disease, about 0.1 (CN) to 1.4 (AD)."""

    subject_id: str
    sex: str
    age_years: float
    diagnosis: str
    months: tuple[int, ...]
    atrophy: float
    progression: float
    """Rise of atrophy over the first 24 months; it accelerates with time."""
    size: float
    """Linear size of the head relative to the template."""
    seed: int
    """Seed of the person's own anatomy."""
    scanner_seed: int
    """Seed of the person's scanner; all visits share one."""
    scanner: ScannerModel | None = None
    """The scanner of all visits, in a cohort with scanners."""
    others: tuple[ScannerModel, ...] = ()
    """Scanners on which a travelling person's first visit is repeated."""
    sex_amplitude: float = SEX_AMPLITUDE
    conversion: float = CONVERSION
    focal: float | None = None
    """Share of the signal lost at the centre of the spot; None in a cohort without."""


@dataclass(frozen=True)
class Visit:
    """One scan, with the state of the brain at that time."""

    subject: Subject
    months: int
    age_years: float
    atrophy: float
    diagnosis: str
    amplitudes: dict[str, float]
    """Amplitude of each of `anatomy.CAUSES`."""
    lesion: float
    """Darkening of white matter around the ventricles (fraction of its signal)."""
    gray_white_ratio: float
    """Signal of grey over white matter; rises with age."""
    elsewhere: ScannerModel | None = None
    """The scanner of a repeat that is not the person's own."""

    @property
    def scanner(self) -> ScannerModel | None:
        """The scanner that this image is from, in a cohort with scanners."""
        return self.elsewhere or self.subject.scanner

    @property
    def scanner_seed(self) -> int:
        """Seed of the scanner that this image is from."""
        return self.scanner.seed if self.scanner else self.subject.scanner_seed

    @property
    def session_id(self) -> str:
        """BIDS session label; repeats on other scanners name theirs."""
        return f"ses-M{self.months:02d}{self.elsewhere.name if self.elsewhere else ''}"

    @property
    def scan_id(self) -> str:
        """BIDS scan name."""
        return f"{self.subject.subject_id}_{self.session_id}"

    @property
    def seed(self) -> int:
        """Seed of the effects that differ between scans: pose, noise, gain."""
        repeat = (self.elsewhere.name,) if self.elsewhere else ()
        return seed_from("phantom scan", self.subject.seed, self.months, *repeat)


def make_subject(number: int, params: PhantomParams) -> Subject:
    """Return subject `number` (from 1) of the cohort with these params."""
    subject_id = f"sub-{number:03d}"
    seed = seed_from("phantom subject", params.seed, subject_id)
    rng = np.random.default_rng(seed)
    block, place = divmod(number - 1, len(DIAGNOSES))
    order = np.random.default_rng(seed_from("phantom block", params.seed, block))
    diagnosis = DIAGNOSES[order.permutation(len(DIAGNOSES))[place]]
    sex = "FM"[int(rng.integers(2))]
    # Age depends little on diagnosis, so that neither label predicts the other.
    age = rng.uniform(*AGES) + {"CN": -1.5, "MCI": 0.0, "AD": 1.5}[diagnosis]
    mean, spread = (OVERLAPPING_SEVERITY if params.overlap else SEVERITY)[diagnosis]
    rise = {"CN": (0.02, 0.08), "MCI": (0.1, 0.5), "AD": (0.3, 0.6)}[diagnosis]
    returns = (0.5 + number * 0.6180339887498949) % 1 < params.multi_visit_share
    months = SCHEDULES[int(rng.integers(len(SCHEDULES)))]
    atrophy = float(max(rng.normal(mean, spread), 0.0))
    sd = OVERLAPPING_SIZE_SD if params.sex_overlap else SIZE_SD
    scanner, others = _scanners(number, params)
    return Subject(
        subject_id=subject_id,
        sex=sex,
        age_years=float(np.clip(age, *AGES)),
        diagnosis=diagnosis,
        months=months if returns else (0,),
        atrophy=atrophy,
        progression=float(rng.uniform(*rise)),
        size=float(SIZES[sex] * np.exp(rng.normal(0, sd))),
        seed=seed,
        scanner_seed=seed_from("phantom scanner", seed),
        scanner=scanner,
        others=others,
        sex_amplitude=OVERLAPPING_SEX_AMPLITUDE if params.sex_overlap else SEX_AMPLITUDE,
        conversion=atrophy + OVERLAPPING_CONVERSION if params.overlap else CONVERSION,
        focal=_focal(seed, params),
    )


def _scanners(
    number: int, params: PhantomParams
) -> tuple[ScannerModel | None, tuple[ScannerModel, ...]]:
    """Return a person's own scanner, in turn, and those of the repeats of a travelling person."""
    if not params.scanners:
        return None, ()
    numbers = range(1, params.scanners + 1)
    own = numbers[(number - 1) % params.scanners]
    others = [n for n in numbers if n != own] if number <= params.travelling else []
    return make_scanner(own, params.seed), tuple(make_scanner(n, params.seed) for n in others)


def _focal(seed: int, params: PhantomParams) -> float | None:
    """Return the strength of a person's dark spot, apart from all else about the person."""
    if not params.focal:
        return None
    has = np.random.default_rng(seed_from("phantom focal", seed)).random() < FOCAL_SHARE
    return params.focal if has else 0.0


def make_visits(subject: Subject) -> list[Visit]:
    """Return the subject's scans, in time order; then repeats of the first on other scanners."""
    deviations = np.random.default_rng(seed_from("phantom course", subject.seed)).normal(size=7)
    visits = [_visit(subject, months, deviations) for months in subject.months]
    return visits + [replace(visits[0], elsewhere=scanner) for scanner in subject.others]


def _visit(subject: Subject, months: int, deviations: np.ndarray) -> Visit:
    """Return the visit at `months`, with the person's deviations (7,) from the usual course."""
    years = months / 12
    age = subject.age_years + years
    aged = (age - AGES[0]) / (AGES[1] - AGES[0])
    atrophy = subject.atrophy + subject.progression * (years / 2) ** 1.7
    # The medial temporal lobe goes first and levels off, cortex goes late: no mixture of two
    # visits looks like the visit between them.
    amplitudes = {
        "ventricle": max(0.35 + 0.3 * deviations[0] + 0.9 * aged + 2.2 * atrophy**1.2, -0.6),
        "medial_temporal": 3.0 * (1 - np.exp(-1.8 * atrophy)) + 0.2 * deviations[1],
        "cortex": 2.0 * atrophy**1.5 + 0.15 * deviations[2],
        "age": 3.2 * aged**1.2 + 0.2 * deviations[3],
        "sex": subject.sex_amplitude * (1 if subject.sex == "M" else -1) + 0.03 * deviations[4],
    }
    converts = subject.diagnosis == "MCI" and atrophy >= subject.conversion
    return Visit(
        subject=subject,
        months=months,
        age_years=age,
        atrophy=atrophy,
        diagnosis="AD" if converts else subject.diagnosis,
        amplitudes={name: float(value) for name, value in amplitudes.items()},
        lesion=float(np.clip(0.03 + 0.3 * aged + 0.03 * deviations[5], 0, 0.45)),
        gray_white_ratio=float(0.715 + 0.09 * aged + 0.009 * deviations[6]),
    )
