"""The report: whole without outside help, safe with hostile names, honest about gaps."""

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from pipeline.evaluation.interpolation import summarise_interpolation
from pipeline.evaluation.manipulation import summarise_dose
from pipeline.figures.brain_slices import brain_box, middle, plane_slice, slice_sprite
from pipeline.figures.probe_plots import FEATURE_NAMES, roc_and_scatter
from pipeline.figures.style import DARK, LIGHT, darkened, figure_bytes, figure_style
from pipeline.metrics.reconstruction import RECONSTRUCTION_METRICS, summarise_reconstruction
from pipeline.probes.protocols import fit_probes
from pipeline.report.render import load_context, render_report
from pipeline.report.sections.applications import VISIT_MEASURES, verdicts
from pipeline.report.sections.cohort import headline_section
from pipeline.report.sections.probes import doubt_of
from pipeline.report.sections.wording import number
from pipeline.stores.volumes import VolumeRow, write_volumes
from schemas.errors import ContractError
from schemas.manifest import VOLUMES
from schemas.metrics import FEWEST_SUBJECTS, Estimate
from schemas.params import Params
from schemas.stores import StoreAttributes
from tests.conftest import MadeOnce

pytestmark = pytest.mark.slow
"""A whole study is drawn first."""

HOSTILE = 'sub-<script>alert("x")</script>&'
PARAMS = Params.model_validate(
    {
        "probe": {
            "bootstrap": 50,
            "folds": 2,
            "repeats": 1,
            "permutations": 3,
            "oracle": ["ventricle_ml"],
        },
        "report": {"max_examples": 2},
    }
)
SECTIONS = (
    "cohort",
    "quality",
    "training",
    "reconstruction",
    "inversion",
    "probes",
    "manipulation",
    "interpolation",
    "generation",
    "parameters",
    "versions",
    "cite",
)


def ellipsoid(shape: tuple[int, int, int], scale: float = 1.0) -> np.ndarray:
    """Return a bright ellipsoid with a dark middle, a brain of sorts, in [0, 1]."""
    axes = [np.linspace(-1, 1, side) for side in shape]
    radius = np.sqrt(sum(g**2 for g in np.meshgrid(*axes, indexing="ij"))) / scale
    return np.where(radius < 0.8, 0.4 + 0.5 * radius, 0) * (radius > 0.2)


def write_study(
    root: Path,
    *,
    brain: Callable[[int], np.ndarray] = lambda i: ellipsoid((24, 30, 26), 1 + i / 60),
    subjects: int = 60,
    first_scan: str = HOSTILE,
    noise: float = 0.03,
) -> None:
    """Write every input of a report for a small made-up study."""
    generator = np.random.default_rng(0)
    numbers = np.arange(subjects)
    subject_ids = np.array([f"sub-{i:02d}" for i in numbers])
    scan_ids = np.array([first_scan, *(f"{s}_ses-01" for s in subject_ids[1:])])
    sick = numbers % 2
    ages = generator.uniform(55, 88, subjects).round(1)
    manifest = pd.DataFrame(
        {
            "scan_id": scan_ids,
            "subject_id": subject_ids,
            "age_years": ages,
            "sex": np.where(generator.random(subjects) < 0.5, "F", "M"),
            "diagnosis": np.where(sick == 1, "AD", "CN"),
            "split": np.array(["train", "train", "val", "test", "test", "train"])[numbers % 6],
            "ventricle_ml": 20 + 0.7 * (ages - 55) + 12 * sick,
            **dict.fromkeys((*VOLUMES, "atrophy"), 1.0),
        }
    )
    root.mkdir(parents=True, exist_ok=True)
    manifest.to_csv(root / "manifest.csv", index=False)
    status = np.where(numbers % 7 == 0, "warn", "pass")
    reasons = np.where(status == "warn", "brain of 890 ml, usual is 950 to 2000", "")
    pd.DataFrame({"scan_id": scan_ids, "status": status, "reasons": reasons}).to_csv(
        root / "qc.csv", index=False
    )
    pd.DataFrame(
        [["sub-98", "a.nii.gz", "preprocess", f"{HOSTILE}: header says 4D, expected 3D"]],
        columns=["scan_id", "path", "stage", "reason"],
    ).to_csv(root / "quarantine.csv", index=False)
    volumes = [brain(i) for i in numbers]
    write_volume_store(root / "volumes.zarr", list(scan_ids), volumes)
    write_logs(root / "models")
    write_evaluation(root / "evaluate", manifest, volumes, noise)
    y_sem = generator.normal(size=(subjects, 6))
    y_sem[:, 0] += 2 * sick
    y_sem[:, 1] += 0.15 * (ages - 70)
    results = fit_probes(
        {"y_sem": y_sem, "pca_latents": generator.normal(size=(subjects, 4))},
        manifest,
        PARAMS.probe,
    )
    folder = root / "probe"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(results.document().model_dump()))
    results.predictions.to_parquet(folder / "predictions.parquet", index=False)


def write_volume_store(path: Path, scan_ids: list[str], volumes: list[np.ndarray]) -> None:
    shape = volumes[0].shape
    attributes = StoreAttributes(
        kind="volumes",
        made_by="test",
        params={},
        digests={},
        grid={"shape": list(shape), "affine": np.eye(4).tolist(), "orientation": "RAS"},
        scan_ids=scan_ids,
        fingerprints=scan_ids,
    )
    rows = (
        VolumeRow(
            volume=(volume * 255).astype(np.uint8),
            native_to_mni=np.eye(4),
            native_affine=np.eye(4),
            native_shape=np.array(shape, dtype=np.int32),
            intensity_range=np.array([0.0, 1.0]),
        )
        for volume in volumes
    )
    write_volumes(path, attributes, rows)


def write_logs(models: Path) -> None:
    generator = np.random.default_rng(1)
    steps = np.arange(10, 610, 10)
    for name, term in (("ae", "l1"), ("ldm", "loss"), ("ldae", "loss")):
        loss = 0.4 * np.exp(-steps / 120) + 0.06 + 0.01 * generator.normal(size=len(steps))
        log = pd.DataFrame({"step": steps, "seconds": steps * 0.6, "loss": loss})
        log[term] = loss
        log[f"val_{term}"] = np.where(steps % 100 == 0, loss * 1.08, np.nan)
        (models / name).mkdir(parents=True)
        log.to_csv(models / name / "log.csv", index=False)


def write_evaluation(
    folder: Path, manifest: pd.DataFrame, volumes: list[np.ndarray], noise: float
) -> None:
    folder.mkdir()
    generator = np.random.default_rng(2)
    test = manifest[manifest.split == "test"]
    rows = []
    for method, ssim in (("ae", 0.93), ("ldae", 0.925), ("ldae_y_sem_only", 0.81)):
        for scan in test.itertuples():
            figures = dict.fromkeys(RECONSTRUCTION_METRICS, 0.002)
            figures |= {"ssim_brain": ssim + 0.01 * generator.normal(), "psnr_brain": 27.0}
            health = {
                "x_T_mean": 0.02 * generator.normal(),
                "x_T_std": 1 + 0.02 * generator.normal(),
                "x_T_kurtosis": 3 + 0.1 * generator.normal(),
            }
            extra = health if method == "ldae" else {}
            rows.append(
                {"scan_id": scan.scan_id, "subject_id": scan.subject_id, "method": method}
                | figures
                | extra
            )
    per_scan = pd.DataFrame(rows)
    (folder / "per_scan").mkdir()
    (folder / "pictures").mkdir()
    per_scan.to_parquet(folder / "per_scan" / "reconstruction.parquet", index=False)
    summary = summarise_reconstruction(per_scan)
    document = {
        "reconstruction": summary,
        "inversion": {"mean": 0.004, "std": 1.02, "kurtosis": 3.05},
        "differences": {
            "ldae_minus_ae": {"ssim_brain": summary["ldae"]["ssim_brain"] | {"value": -0.0123}}
        },
        "steps": {"5": {"ldae": summary["ae"]}, "20": {"ldae": summary["ldae"]}},
        "manipulation": write_manipulation(folder, test, volumes),
        "interpolation": write_interpolation(folder, test, volumes),
        "generation": write_generation(folder, volumes),
    }
    (folder / "metrics.json").write_text(json.dumps(document))
    reference = np.stack([volumes[i] for i in test.index[:3]])
    inside = reference > 0

    def noisy(amount: float) -> np.ndarray:
        spread = amount * generator.normal(size=reference.shape)
        return grey((reference + spread).clip(0, 1) * inside)

    np.savez_compressed(
        folder / "pictures" / "reconstruction.npz",
        scan_id=test.scan_id.to_numpy(dtype=str)[:3],
        reference=grey(reference),
        ae=noisy(noise),
        ldae=noisy(1.2 * noise),
        ldae_y_sem_only=noisy(4 * noise),
    )


def grey(volumes: np.ndarray) -> np.ndarray:
    return (volumes * 255).astype(np.uint8)


def write_manipulation(
    folder: Path, test: pd.DataFrame, volumes: list[np.ndarray]
) -> dict[str, Any]:
    scales = np.array([-1.0, 0, 1])
    tables = [
        pd.DataFrame(
            {
                "scale": scales,
                "score": gain * scales,
                "pca_score": scales,
                "ventricle_ml": 30 + i + gain * scales,
                "identity": 0.99 - 0.01 * np.abs(scales),
                "same_subject": True,
            }
        ).assign(scan_id=scan.scan_id, subject_id=scan.subject_id, method=method)
        for i, scan in enumerate(test.itertuples())
        for method, gain in (("ldae", 2.0), ("pca", 3.0))
    ]
    responses = pd.concat(tables)
    responses.to_parquet(folder / "per_scan" / "manipulation.parquet", index=False)
    made = grey(np.stack([np.stack([volumes[i]] * 3) for i in test.index[:2]]))
    np.savez_compressed(
        folder / "pictures" / "manipulation.npz",
        scan_id=test.scan_id.to_numpy(dtype=str)[:2],
        own=made[:, 1],
        ldae=made,
        pca=made,
    )
    return {
        "direction": "diagnosis:AD",
        "scales": scales.tolist(),
        "subjects": len(test),
        "methods": summarise_dose(responses),
    }


def write_interpolation(
    folder: Path, test: pd.DataFrame, volumes: list[np.ndarray]
) -> dict[str, Any]:
    errors = {"ldae": 1.0, "ldae_detail": 0.7, "latent_blend": 1.1, "blend": 0.5, "nearest": 2.0}
    rows = [
        {
            "scan_id": scan.scan_id,
            "subject_id": scan.subject_id,
            "method": method,
            "target": target,
            "gap_months": 12.0 + 12 * (i % 2),
            "alpha": 0.5,
            "mse_brain": 0.001 * error * (1 + 0.1 * i),
            "ssim_brain": 1 - 0.01 * error,
            "ventricle_error_ml": error,
        }
        for i, scan in enumerate(test.itertuples())
        for target in ("scan", "decoded")
        for method, error in errors.items()
        if (target, method) != ("decoded", "ldae_detail")
    ]
    per_scan = pd.DataFrame(rows)
    per_scan.to_parquet(folder / "per_scan" / "interpolation.parquet", index=False)
    shown = grey(np.stack([volumes[i] for i in test.index[:1]]))
    np.savez_compressed(
        folder / "pictures" / "interpolation.npz",
        scan_id=test.scan_id.to_numpy(dtype=str)[:1],
        gap_months=np.array([12.0]),
        **dict.fromkeys(("before", "scan", "after", *errors), shown),
    )
    summary = summarise_interpolation(per_scan)
    return {"visits": len(test)} | summary


def write_generation(folder: Path, volumes: list[np.ndarray]) -> dict[str, Any]:
    brains = grey(np.stack(volumes[:3]))
    names = ("held_out", "denoiser", "prior")
    np.savez_compressed(folder / "pictures" / "generation.npz", **dict.fromkeys(names, brains))
    figures = {
        "ms_ssim_between": 0.8,
        "mmd_latent": 0.01,
        "brains": 3,
        "nearest_training_median": 0.3,
        "nearest_training_min": 0.2,
    }
    return {"brains": 3, "medicalnet": False, "sets": dict.fromkeys(names, figures)}


def render(root: Path, params: Params, **parts: Path) -> str:
    render_report(
        load_context(params=params, manifest=root / "manifest.csv", **parts), root / "report.html"
    )
    return (root / "report.html").read_text(encoding="utf-8")


def all_parts(root: Path) -> dict[str, Path]:
    files = {"qc": "qc.csv", "quarantine": "quarantine.csv", "volumes": "volumes.zarr"}
    return {name: root / files.get(name, name) for name in (*files, "models", "evaluate", "probe")}


class Page(HTMLParser):
    """Collects what a browser would fetch, the ids, the scripts and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "poster", "action") and value:
                self.loads.append(value)
            if name == "style" and value:
                self.loads.extend(re.findall(r"url\(([^)]*)\)", value))
            if name == "id" and value:
                self.ids.append(value)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def study(made_once: MadeOnce) -> tuple[Path, str]:
    return made_once("reported", _reported)


def _reported(root: Path) -> tuple[Path, str]:
    write_study(root)
    return root, render(root, PARAMS, **all_parts(root))


def test_nothing_is_loaded_from_outside(study: tuple[Path, str]) -> None:
    page = Page(study[1])
    assert page.loads
    assert all(load.startswith(("data:", "#")) for load in page.loads)
    style = study[1].split("<style>")[1].split("</style>")[0]
    assert not re.search(r"url\(|@import", style)
    assert "default-src 'none'" in study[1]


def test_every_section_is_there_once(study: tuple[Path, str]) -> None:
    page = Page(study[1])
    assert sorted(page.ids) == sorted(SECTIONS)
    assert {load.removeprefix("#") for load in page.loads if load.startswith("#")} == set(SECTIONS)
    assert "Not run" not in study[1]


def test_hostile_names_stay_text(study: tuple[Path, str]) -> None:
    page = Page(study[1])
    assert page.tags.count("script") == 1
    assert "<script>alert" not in study[1]
    assert HOSTILE in "".join(page.text)


def test_phantoms_are_called_phantoms(study: tuple[Path, str], tmp_path: Path) -> None:
    """By what the manifest holds: --phantom and --input override the parameters."""
    root, text = study
    assert "Synthetic phantoms, no clinical meaning" in text
    params = Params.model_validate({"cohort": {"source": "bids", "input": "in"}})
    assert "no clinical meaning" in render(root, params)
    real = pd.read_csv(root / "manifest.csv").drop(columns=["atrophy", *VOLUMES])
    real.to_csv(tmp_path / "manifest.csv", index=False)
    assert "no clinical meaning" not in render(tmp_path, Params())


def test_figures_of_the_autoencoder_are_no_study(study: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text('{"ms_ssim_scales": 3, "split": "test"}')
    with pytest.raises(ContractError, match="of `evaluate --what ae`"):
        render(study[0], PARAMS, evaluate=tmp_path)


def test_one_subject_decides_nothing() -> None:
    certain = {"value": -1.0, "low": -1.0, "high": -1.0, "subjects": 1}
    found = {"ldae_minus": {"scan": {"blend": dict.fromkeys(VISIT_MEASURES, certain)}}}
    (row,) = verdicts(found)
    assert {cell["verdict"] for cell in row["cells"]} == {"too few subjects to tell"}


@pytest.mark.parametrize(
    ("kind", "metric", "estimate", "p", "doubted"),
    [
        ("classification", "roc_auc", (0.9, 0.7, 1.0, 12), 0.01, False),
        ("classification", "roc_auc", (0.9, 0.7, 1.0, 12), 0.18, True),
        ("classification", "roc_auc", (0.6, 0.4, 0.8, 12), 0.01, True),
        ("classification", "roc_auc", (1.0, 1.0, 1.0, 12), 0.01, True),
        ("classification", "roc_auc", (1.0, 0.4, 1.0, FEWEST_SUBJECTS - 1), 0.01, True),
        ("regression", "mae_gain", (0.4, 0.1, 0.6, 12), 0.01, False),
        ("regression", "mae_gain", (0.4, 0.1, 0.6, 12), 0.3, True),
        ("regression", "mae_gain", (-0.2, -0.3, 0.1, 12), 0.01, True),
    ],
)
def test_a_direction_is_worth_no_more_than_its_probe(kind, metric, estimate, p, doubted):
    figure = dict(zip(("value", "low", "high", "subjects"), estimate, strict=True))
    fewer = figure | {"low": 0.9, "subjects": 3}
    tested = {"permutation": {"p": p, "permutations": 100}}
    probe = {
        "targets": {"label": {"kind": kind, "cv": tested}},
        "test": {"label": {"y_sem": {metric: fewer, "mae": fewer}}},
        "cv": {"label": {"y_sem": {metric: figure, "mae": figure}}},
    }
    direction = "label:AD" if kind == "classification" else "label"
    assert (doubt_of(direction, probe) is not None) == doubted
    assert doubt_of("other", probe) is None
    assert doubt_of(direction, None) is None


def test_few_subjects_have_no_interval():
    few = {"value": 0.5, "low": 0.5, "high": 0.5, "subjects": FEWEST_SUBJECTS - 1}
    enough = few | {"low": 0.4, "subjects": FEWEST_SUBJECTS}
    assert [str(Estimate(**e)) for e in (few, enough)] == ["0.500", "0.500 [0.400, 0.500]"]
    page = Environment(loader=PackageLoader("pipeline", "evaluation/templates"), autoescape=True)
    page.filters["number"] = number
    page.filters["interval"] = lambda figure: Estimate(**figure).interval
    macro = page.get_template("macros.html.j2", globals=page.globals).module.estimate
    assert "subjects" in macro(few)
    assert "0.500–" not in macro(few)
    assert "0.400–0.500" in macro(enough)
    assert "0.50" not in macro(few | {"interval_method": "few"}), "an AUC of eight people"


def test_every_method_of_a_plot_has_a_colour():
    names = [f"method {i}" for i in range(7)]
    colours = LIGHT.colours(names)
    assert list(colours) == names
    assert colours["method 0"] == LIGHT.accent
    assert len(set(colours.values())) == 1 + len(LIGHT.others)


def test_roc_curves_can_be_told_apart_by_their_legend(tmp_path):
    sets = list(FEATURE_NAMES)
    rows = pd.DataFrame(
        [
            {"target": "sex", "feature_set": name, "truth": i % 2, "score": float(i)}
            | {"subject_id": f"sub-{i}"}
            for name in sets
            for i in range(6)
        ]
    )
    about = {"sex": {"kind": "classification", "positive": "M", "negative": "F"}}
    with figure_style():
        figure = roc_and_scatter(rows, about, LIGHT)
        figure.savefig(tmp_path / "roc.png")
    legend = figure.legends[0]
    assert legend.get_texts()[0].get_text() == "y_sem"
    assert figure.bbox.containsx(legend.get_window_extent().x0)
    assert figure.bbox.containsx(legend.get_window_extent().x1)
    lines = [(line.get_color(), line.get_linestyle()) for line in legend.get_lines()]
    assert len(lines) == len(set(lines)) >= 5
    alone = rows.assign(subject_id=[f"sub-{t}" for t in rows["truth"]])
    assert not roc_and_scatter(alone, about, LIGHT).legends, "one subject a class is not ranked"


def test_figures_are_kept_as_files(study: tuple[Path, str]) -> None:
    names = {path.name for path in (study[0] / "figures").iterdir()}
    assert names == {
        "calibration_cv.svg",
        "calibration_test.svg",
        "cohort_ages.svg",
        "dose_response.svg",
        "generation.png",
        "inversion.svg",
        "manipulation_1.png",
        "manipulation_2.png",
        "middle_visit_1.png",
        "middle_visits.svg",
        "probes_cv.svg",
        "probes_test.svg",
        "qc_mosaic.png",
        "reconstruction_1.png",
        "reconstruction_2.png",
        "steps.svg",
        "training_curves.svg",
    }


def test_numbers_of_the_tables_are_the_numbers_given(study: tuple[Path, str]) -> None:
    root, text = study
    probe = json.loads((root / "probe" / "metrics.json").read_text())
    auc = probe["test"]["diagnosis"]["y_sem"]["roc_auc"]
    assert f"{auc['value']:.3f}" in text
    assert f"{auc['low']:.3f} to {auc['high']:.3f}" in text
    evaluation = json.loads((root / "evaluate" / "metrics.json").read_text())
    assert f"{evaluation['reconstruction']['ldae']['ssim_brain']['value']:.3f}" in text
    assert probe["skipped"] == {} or all(reason in text for reason in probe["skipped"].values())


def test_what_was_not_run_says_so(study: tuple[Path, str]) -> None:
    text = render(study[0], PARAMS)
    for command in ("preprocess", "train-ae", "evaluate", "probe"):
        assert f"pipeline {command}</code> fills this section" in text
    assert "(without effect: autoencoder.source is bundled)" in text
    assert sorted(Page(text).ids) == sorted(SECTIONS)


def test_labels_may_be_missing_altogether(tmp_path: Path) -> None:
    pd.DataFrame(
        {"scan_id": ["sub-1"], "subject_id": ["sub-1"], "split": ["train"], "age_years": [np.nan]}
    ).to_csv(tmp_path / "manifest.csv", index=False)
    assert "sub-1" not in render(tmp_path, Params())


@pytest.mark.slow
def test_same_study_same_page(study: tuple[Path, str]) -> None:
    root, text = study
    assert render(root, PARAMS, **all_parts(root)) == text
    assert len(text) < 4_000_000


def test_a_dark_plot_is_the_light_one_in_other_colours() -> None:
    with figure_style() as palette:
        figure = Figure()
        for colour in palette:
            figure.subplots().plot([0, 1], color=colour)
        light = figure_bytes(figure, "svg")
    dark = darkened(light)
    assert len(set(LIGHT)) == len([*LIGHT]) == 10, "one for one"
    for before, after in zip(LIGHT, DARK, strict=True):
        count = light.count(before.encode())
        assert count
        assert (dark.count(before.encode()), dark.count(after.encode())) == (0, count)


def test_broken_inputs_are_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no manifest; run `pipeline cohort`"):
        load_context(params=PARAMS, manifest=tmp_path / "manifest.csv")
    (tmp_path / "manifest.csv").write_text("scan_id,label\ns,s\n")
    with pytest.raises(ContractError, match="no column subject_id, split"):
        load_context(params=PARAMS, manifest=tmp_path / "manifest.csv")
    (tmp_path / "manifest.csv").write_text("scan_id,subject_id,split\ns,s,train\n")
    (tmp_path / "ae").mkdir()
    (tmp_path / "ae" / "metrics.json").write_text('{"loss": 0.1}')
    evaluate = tmp_path / "evaluate"
    asked = {"params": PARAMS, "manifest": tmp_path / "manifest.csv", "evaluate": evaluate}
    assert load_context(**asked).ae_quality is None, "a model called ae, no judgement of one"
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ContractError, match=r"metrics\.json: not JSON"):
        load_context(params=PARAMS, manifest=tmp_path / "manifest.csv", probe=tmp_path)


def test_slices_stand_upright() -> None:
    volume = np.zeros((7, 8, 9))
    volume[6, 7, 8] = 1  # right, anterior, superior
    for plane, shape in (("axial", (8, 7)), ("coronal", (9, 7)), ("sagittal", (9, 8))):
        index = {"axial": 8, "coronal": 7, "sagittal": 6}[plane]
        image = plane_slice(volume, plane, index)
        assert image.shape == shape
        assert image[0, -1] == 1
    assert middle(volume) == {"axial": 8, "coronal": 7, "sagittal": 6}
    assert brain_box(volume, margin=1) == (slice(5, 7), slice(6, 8), slice(7, 9))


def test_a_sprite_holds_whole_frames() -> None:
    volume = ellipsoid((24, 30, 26))
    sprite = slice_sprite([volume, volume], "coronal", frames=5, panel_pixels=40)
    assert sprite.webp[8:12] == b"WEBP"
    assert sprite.frames == 5
    assert sprite.aspect > 1


def test_the_report_says_who_wins_where(study: tuple[Path, str]) -> None:
    text = re.sub(r"\s+", " ", "".join(Page(study[1]).text))
    assert re.search(r"LDAE against nearest visit ?better", text)
    assert re.search(r"LDAE against voxel blend ?worse", text)
    assert "diagnosis:AD" in text


def test_tables_are_files_too(study: tuple[Path, str]) -> None:
    tables = study[0] / "tables"
    visits = pd.read_csv(tables / "middle_visits.csv")
    row = visits.query("target == 'scan' and method == 'blend' and measure == 'ssim_brain'")
    assert row["value"].item() == pytest.approx(0.995)
    assert r"\toprule" in (tables / "probe_test_diagnosis.tex").read_text()
    assert r"ldae\_detail" in (tables / "middle_visits.tex").read_text()
    dose = pd.read_csv(tables / "dose.csv")
    assert dose.query("method == 'ldae'")["ventricle_ml"].is_monotonic_increasing


def test_parts_left_out_say_why(study: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copy(study[0] / "manifest.csv", tmp_path)
    parts = ("manipulation", "interpolation", "generation")
    (tmp_path / "evaluate").mkdir()
    document = {part: {"skipped": f"no {part} today"} for part in parts}
    (tmp_path / "evaluate" / "metrics.json").write_text(json.dumps(document))
    text = render(tmp_path, PARAMS, evaluate=tmp_path / "evaluate")
    for part in parts:
        assert f"Left out: no {part} today." in text


PROBE_SCRIPT = """
<script>
const viewer = document.querySelector(".viewer"), slider = viewer.querySelector("input");
const frame = viewer.querySelector(".frame"), seen = [];
const look = () => seen.push(frame.style.backgroundImage + frame.style.backgroundPositionY);
look();
slider.value = 3; slider.dispatchEvent(new Event("input")); look();
viewer.querySelector("[data-plane=sagittal]").click(); look();
const broken = [...document.images].filter((image) => image.complete && !image.naturalWidth);
document.title = JSON.stringify({ seen, broken: broken.length, images: document.images.length });
</script>
"""


@pytest.mark.slow
def test_page_works_in_a_real_browser(study: tuple[Path, str], tmp_path: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    page = tmp_path / "page.html"
    page.write_text(study[1].replace("</body>", PROBE_SCRIPT + "</body>"), encoding="utf-8")
    command = [
        browser,
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update"),
        *("--enable-logging=stderr", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--window-size=1400,2000", "--virtual-time-budget=5000", "--dump-dom"),
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    # A blocked request would stand here too: the page's policy turns it into a console error.
    assert "CONSOLE" not in done.stderr
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    found = json.loads(html.unescape(title[1]))
    assert found["broken"] == 0
    assert found["images"] >= 8
    start, slid, turned = found["seen"]
    assert start != slid
    assert "axial" in slid
    assert "sagittal" in turned


def test_few_test_subjects_are_headed_by_cross_validation(tmp_path: Path) -> None:
    write_study(tmp_path, subjects=18)
    context = load_context(
        params=PARAMS, manifest=tmp_path / "manifest.csv", probe=tmp_path / "probe"
    )
    cards = headline_section(context)
    age = next(card for card in cards if card["label"].startswith("Age"))
    assert age["note"].endswith("cross-validated")
    assert age["estimate"]["subjects"] == 9, "val and test; test alone has 6"
