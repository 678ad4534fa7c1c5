"""The bundled autoencoder's claim: by source, on people and on sources that it never saw."""

import numpy as np
import pandas as pd

from benchmarks.studies.autoencoder_by_source import table, trained_scans, unseen_scans
from tests.support.paths import ROOT

RESULT = ROOT / "benchmarks" / "results" / "autoencoder-by-source.csv"


def cohort() -> pd.DataFrame:
    """Three people of a source trained on, one of them twice, and two of another."""
    rows = [
        ("sub-a1_ses-1", "sub-a1", "A"),
        ("sub-a1_ses-2", "sub-a1", "A"),
        ("sub-a2", "sub-a2", "A"),
        ("sub-a3", "sub-a3", "A"),
        ("sub-b1", "sub-b1", "B"),
        ("sub-b2", "sub-b2", "B"),
    ]
    return pd.DataFrame(rows, columns=["scan_id", "subject_id", "site"])


def test_a_person_seen_once_is_judged_in_no_scan():
    unseen = unseen_scans(cohort(), {"sub-a1_ses-1", "sub-a2"})
    assert unseen["scan_id"].tolist() == ["sub-a3", "sub-b1", "sub-b2"]
    assert unseen["trained_on"].tolist() == [True, False, False]


def test_a_source_is_trained_on_if_any_of_its_people_was_seen():
    assert unseen_scans(cohort(), {"sub-a1"})["trained_on"].tolist() == [True, True, False, False]
    assert not unseen_scans(cohort(), set())["trained_on"].any()
    assert len(trained_scans()) == 121


def judged(people: int, **about: object) -> pd.DataFrame:
    numbers = np.arange(people)
    return pd.DataFrame(
        {
            "scan_id": [f"{about['source']}{i}" for i in numbers],
            "subject_id": [f"{about['source']}{i}" for i in numbers],
            "ssim_brain": 0.9 + 0.01 * numbers,
            "psnr_brain": 21.0 + numbers,
        }
    ).assign(**about)


def test_the_table_is_by_source_and_few_people_have_no_interval():
    per_scan = pd.concat(
        [
            judged(6, source="New", trained_on=False, voxel_mm=1.0),
            judged(4, source="Few", trained_on=False, voxel_mm=1.0),
            judged(5, source="Old", trained_on=True, voxel_mm=1.0),
            judged(5, source="Old", trained_on=True, voxel_mm=2.0).assign(ssim_brain=0.95),
        ]
    )
    lines = {line.split(" | ")[0].strip("|* "): line for line in table(per_scan).splitlines()[2:]}
    assert list(lines) == [
        "all sources never trained on", "unseen people of sources trained on",
        "Few", "New", "Old, 1 mm voxels", "Old, 2 mm voxels",
    ]  # fmt: skip
    assert "[" not in lines["Few"]
    assert "| no | 6 | 6 | 0.925 [0.9" in lines["New"]
    assert "| yes | 5 | 5 | 0.950 | " in lines["Old, 2 mm voxels"]
    assert "| no | 10 | 10 | 0.921 [" in lines["all sources never trained on"]


def test_the_cards_headline_is_of_sources_never_trained_on():
    figures = pd.read_csv(RESULT)
    assert not set(figures["scan_id"]) & trained_scans()
    new = figures[~figures["trained_on"]]
    rows = [line.split(" | ") for line in RESULT.with_suffix(".md").read_text().splitlines()]
    headline = next(row[4] for row in rows if row[0] == "| **all sources never trained on**")
    assert abs(float(headline.split()[0]) - new["ssim_brain"].mean()) < 0.002
    card = (ROOT / "pipeline/weights/ae/README.md").read_text()
    first = next(line for line in card.splitlines() if line.startswith("| **"))
    assert first.startswith("| **sources never trained on, all**")
    assert f"| {new['subject_id'].nunique()} | {len(new)} | **{headline}**" in first
    for page in ("README.md", "docs/autoencoder.md", "docs/real-data-run.md"):
        assert headline in (ROOT / page).read_text(), page
    of_sources = [row[4] for row in rows if len(row) > 4 and row[1] == "no" and "[" in row[4]]
    assert len(of_sources) >= 4
    assert all(figure in card for figure in of_sources)


def test_the_card_is_that_of_its_recipe_and_the_docs_have_the_whole_table():
    card = (ROOT / "pipeline/weights/ae/README.md").read_text()
    assert card == (ROOT / "recipes/bundled_ae/card.md").read_text()
    rows = RESULT.with_suffix(".md").read_text().split("\n\n")[-1].strip()
    assert rows in (ROOT / "docs/autoencoder.md").read_text()
