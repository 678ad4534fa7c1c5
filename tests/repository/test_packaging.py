"""The wheel carries everything that runs outside the clone, and one version."""

import posixpath
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from pipeline import __version__
from tests.support.made_once import MadeOnce
from tests.support.paths import ROOT

PACKAGES = ("pipeline", "stages", "schemas")


@pytest.fixture(scope="module")
def wheel(made_once: MadeOnce) -> Path:
    return made_once("wheel", _built)


def _built(out: Path) -> Path:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_file_of_the_packages_is_in_the_wheel(names):
    """Templates, JSON Schemas, weights and their cards too, whatever is added later."""
    expected = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    assert {"schemas/json/store.json", "pipeline/py.typed"} <= expected
    assert expected <= names


def test_presets_and_stages_travel_as_templates(names):
    presets = {f"stages/templates/params/{p.name}" for p in (ROOT / "params").glob("*.yaml")}
    assert presets | {"stages/templates/dvc.yaml", "stages/templates/params.yaml"} <= names


def test_nothing_else_is_in_the_wheel(names):
    tops = {name.split("/")[0] for name in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {*PACKAGES, "benchmarks"}
    assert sum(name.startswith("benchmarks/results") for name in names) == 0


def test_the_version_is_written_in_one_place(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        assert f"\nVersion: {__version__}\n" in archive.read(metadata).decode()
    assert f'"{__version__}"' not in (ROOT / "pyproject.toml").read_text()
    assert "version" not in yaml.safe_load((ROOT / "CITATION.cff").read_text())


RELATIVE = re.compile(r"\]\((?!https?://|#)([^)#]*)")
NAMED = re.compile(r"`pipeline docs ([\w-]+)`")


def description(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return archive.read(metadata).decode()


def test_the_description_of_the_package_names_pages_that_it_carries(wheel, names):
    text = description(wheel)
    assert not RELATIVE.findall(text)
    readme = (ROOT / "README.md").read_text()
    linked = {Path(link).stem for link in RELATIVE.findall(readme) if link.endswith(".md")}
    assert set(NAMED.findall(text)) == linked
    assert {f"stages/pages/{page}.md" for page in linked} <= names


def test_every_link_of_every_page_in_the_wheel_leads_somewhere(wheel, names):
    with zipfile.ZipFile(wheel) as archive:
        pages = {n: archive.read(n).decode() for n in names if re.match(r"stages/pages/.*md$", n)}
    in_repository = {p.stem for p in (ROOT / "docs").glob("*.md")} - {"index"}
    assert {Path(name).stem for name in pages} == in_repository | {"README"}
    dead = [
        f"{name}: {link}"
        for name, text in pages.items()
        for link in RELATIVE.findall(text)
        if posixpath.normpath(posixpath.join(posixpath.dirname(name), link)) not in names
    ]
    assert not dead
    assert "{literalinclude}" not in pages["stages/pages/params.md"]
    assert "train_ldm:" in pages["stages/pages/params.md"]


@pytest.mark.slow
def test_an_sdist_makes_the_same_pages(names, tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    carried = {name.removeprefix("stages/pages/") for name in names if "/pages/" in name}
    assert {"hatch_build.py", "README.md", "params.yaml"} <= packed
    assert {f"docs/{name}" for name in carried - {"README.md"}} <= packed


@pytest.mark.slow
def test_the_wheel_alone_makes_a_study_in_an_empty_folder(wheel, tmp_path):
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from stages.cli import main; main()"
    asked = (["--version"], ["init", "study", "--preset", "paper"], ["init", "other"])
    printed = {}
    for words in (*asked, ["docs"], ["docs", "docs/faq.md"], ["docs", "README"]):
        result = subprocess.run(
            [sys.executable, "-c", code, str(site), *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        printed[words[-1]] = result.stdout
    assert "faq                    Questions" in printed["docs"]
    assert printed["docs/faq.md"] == (ROOT / "docs" / "faq.md").read_text()
    assert printed["README"].startswith("# ldae-pipeline")
    for study in ("study", "other"):
        assert (tmp_path / study / "params.yaml").is_file()
        stages = yaml.safe_load((tmp_path / study / "dvc.yaml").read_text())["stages"]
        assert not [d for s in stages.values() for d in s.get("deps", []) if "pipeline/" in d]
