"""The page as one file."""

import gzip
import json
import re
from base64 import b64decode

import numpy as np
import pytest

from pipeline.explore.brains import BrainRequest
from pipeline.explore.export import MODULES, bundled, export_page, page_text
from pipeline.explore.server import PAGE, levels, page_files
from schemas.errors import ContractError, ParamsError
from tests.support.explore_study import HOSTILE, TOWARDS
from tests.support.report_study import Page
from tests.support.volumes import SCAN, SHAPE


@pytest.fixture(scope="module")
def exported(engine, tmp_path_factory):
    out = tmp_path_factory.mktemp("export") / "page.html"
    size = export_page(engine, out, scans=[SCAN], places=3)
    text = out.read_text(encoding="utf-8")
    assert size == len(text.encode())
    return text


def data_of(text, name):
    found = re.search(rf'<script type="[^"]*" id="{re.escape(name)}">([^<]*)</script>', text)
    assert found, name
    return found[1]


def test_the_file_holds_the_brains(exported, engine):
    document = json.loads(data_of(exported, "kept-document"))
    assert document["people"] == [SCAN]
    assert document["scales"] == [-3, 0, 3]
    request = BrainRequest(kind="move", scan=SCAN, direction=TOWARDS, scale=3)
    packed = data_of(exported, f"move|{SCAN}|{TOWARDS}|3")
    kept = np.frombuffer(gzip.decompress(b64decode(packed)), np.uint8)
    assert np.array_equal(kept.reshape(SHAPE, order="F"), levels(engine.make(request).volume))
    assert document["regions"][f"{SCAN}|{TOWARDS}|3"]["bars"]


def test_the_file_loads_nothing(exported):
    page = Page(exported)
    assert [load for load in page.loads if load != "data:," and not load.startswith("#")] == []
    assert "default-src 'none'" in exported
    assert "/page/" not in exported


def test_no_word_of_the_study_becomes_markup(exported):
    assert HOSTILE not in exported
    document = json.loads(data_of(exported, "kept-document"))
    assert any(HOSTILE in label["groups"] for label in document["study"]["labels"])
    hostile = page_text({"a": "</script><b>"}, {'x"><script>': "QUJD"})
    assert "<b>" not in hostile
    assert 'x"><script>' not in hostile


def test_every_script_of_the_page_is_in_the_file_and_no_name_twice():
    assert {f"{name}.js" for name in MODULES} == {n for n in page_files() if n.endswith(".js")}
    names = re.findall(
        r"^(?:async )?(?:const|function|class|let) (\w+)", bundled(), flags=re.MULTILINE
    )
    assert len(names) == len(set(names))
    assert not re.search(r"^(import|export) ", bundled(), flags=re.MULTILINE)


def test_imports_of_the_page_are_in_order():
    """A script comes after all that it imports, so that one file can hold them one by one."""
    seen = set()
    for name in MODULES:
        text = PAGE.joinpath(f"{name}.js").read_text()
        imported = set(re.findall(r'^import .* from "\./(\w+)\.js";$', text, flags=re.MULTILINE))
        assert imported <= seen, name
        assert text.count("import ") == len(imported)
        seen.add(name)


def test_what_cannot_be_exported_is_told(engine, open_engine, study_folder, tmp_path):
    with pytest.raises(ParamsError, match=r"--scan sub-nobody: not in .*manifest.csv"):
        export_page(engine, tmp_path / "a.html", scans=["sub-nobody"])
    bare = open_engine(study_folder)
    bare.directions = type(bare.directions)(file=None, by_name={}, documents=[])
    with pytest.raises(ContractError, match="--export: the study has no directions"):
        export_page(bare, tmp_path / "a.html")
