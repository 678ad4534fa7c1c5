"""The table of both bundled autoencoders at 1.5 mm is that of the scores kept beside it."""

import pandas as pd

from benchmarks.studies.autoencoder_resolutions import WAYS, groups, table
from tests.support.paths import ROOT

RESULTS = ROOT / "benchmarks" / "results"


def test_the_kept_table_is_made_of_the_kept_scores():
    per_scan = pd.read_csv(RESULTS / "autoencoder-resolutions.csv")
    assert (RESULTS / "autoencoder-resolutions.md").read_text() == table(per_scan)


def test_every_scan_of_a_new_source_is_an_elder_or_younger():
    per_scan = pd.read_csv(RESULTS / "autoencoder-resolutions.csv")
    found = groups(per_scan)
    new = set(found["sources never trained on"]["scan_id"])
    parts = [set(rows["scan_id"]) for name, rows in found.items() if name.startswith("of them")]
    assert set.union(*parts) == new
    assert not set.intersection(*parts)


def test_the_card_has_the_figures_of_the_table():
    card = (ROOT / "pipeline/weights/ae-1.5mm/README.md").read_text()
    assert card == (ROOT / "recipes/bundled_ae_1_5mm/card.md").read_text()
    rows = (RESULTS / "autoencoder-resolutions.md").read_text().splitlines()
    fine = [row for row in rows if f"| {WAYS['fine']} |" in row]
    assert fine
    for row in fine:
        ssim = row.split("|")[5].strip()
        assert ssim in card, ssim
