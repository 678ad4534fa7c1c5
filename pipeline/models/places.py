"""Where weights lie: those of the package, and those of a study. Loads nothing."""

from pathlib import Path

BUNDLED = Path(__file__).parents[1] / "weights" / "ae"
BUNDLED_1_5MM = Path(__file__).parents[1] / "weights" / "ae-1.5mm"
BUNDLED_LDAE = Path(__file__).parents[1] / "weights" / "ldae"
STUDY = Path("models/ae")
STUDY_LDAE = Path("models/ldae")
