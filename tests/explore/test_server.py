"""What the page's server answers, and to whom."""

import gzip
import hashlib
import io
import json
import shlex
import socket
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from typer.testing import CliRunner

from pipeline.explore.brains import BrainRequest
from pipeline.explore.downloads import command
from pipeline.explore.engine import Engine
from pipeline.explore.film import _font
from pipeline.explore.serve import LOCAL_NAMES, listen, shown_host
from pipeline.explore.server import PAGE, ExploreServer, page_files
from schemas.errors import ContractError
from stages.cli import app as command_line
from tests.support.explore_study import HOSTILE, STEPS, TOWARDS
from tests.support.volumes import OTHER, SCAN, SHAPE

TOKEN = "t0ken"
MOVE = {"kind": "move", "scan": SCAN, "direction": TOWARDS, "scale": 1.5}


@pytest.fixture(scope="session")
def server(engine):
    return ExploreServer(engine)


@pytest.fixture
def client(server):
    app = server.app(token=TOKEN, hosts=LOCAL_NAMES)
    with TestClient(
        app, base_url="http://127.0.0.1:8765", headers={"x-explore-token": TOKEN}
    ) as opened:
        yield opened


@pytest.fixture
def ready(client, engine):
    """A client whose server has its models."""
    engine._ready.wait(60)
    return client


def test_every_answer_forbids_what_the_page_does_not_need(client):
    for path in ("/", "/page/main.js", "/api/study", "/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", "ß"])
def test_data_needs_the_token(client, token):
    del client.headers["x-explore-token"]
    given = {} if token is None else {"x-explore-token": token.encode()}
    for path in ("study", "status", "layout", "volume?scan=" + SCAN):
        assert client.get(f"/api/{path}", headers=given).status_code == 403
    for path in ("brain", "nifti", "film", "regions", "command"):
        assert client.post(f"/api/{path}", headers=given, json={}).status_code == 403
    assert client.get(f"/api/study?token={TOKEN}").status_code == 403, "a link is no header"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8765", "evil@x", ""])
def test_a_page_of_elsewhere_cannot_ask_under_its_own_name(client, host):
    refused = client.get("/api/study", headers={"host": host})
    assert refused.status_code == 400
    assert "does not go by that name" in refused.json()["error"]


@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1", "[::1]:8765", "LOCALHOST"])
def test_local_names_are_known(client, host):
    assert client.get("/api/status", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/page/../server.py",
        "/page/%2e%2e/server.py",
        "/page/..%2fserver.py",
        "/page//etc/passwd",
        "/page/__init__.py",
        "/api/volume?scan=../../manifest",
        "/api/volume?scan=%00",
    ],
)
def test_no_path_leads_out_of_the_page(client, path):
    answer = client.get(path)
    assert answer.status_code in (404, 422)
    assert b"import" not in answer.content
    assert b"root:" not in answer.content


def test_the_page_lists_its_own_files_alone(client):
    assert {"index.html", "main.js", "style.css", "niivue.umd.js.gz"} <= set(page_files())
    assert "NOTICE.md" not in page_files()
    assert client.get("/").text == PAGE.joinpath("index.html").read_text()


def test_niivue_is_the_file_that_the_notice_names(client):
    notice = PAGE.joinpath("NOTICE.md").read_text()
    answer = client.get("/page/niivue.umd.js.gz")
    assert answer.headers["content-encoding"] == "gzip"
    assert hashlib.sha256(answer.content).hexdigest() in notice
    plain = client.get("/page/niivue.umd.js.gz", headers={"accept-encoding": "identity"})
    assert (
        plain.content
        == answer.content
        == gzip.decompress(PAGE.joinpath("niivue.umd.js.gz").read_bytes())
    )


def test_the_study_as_the_page_reads_it(ready, engine):
    study = ready.get("/api/study").json()
    assert study["scans"] == engine.study.scan_ids
    assert study["status"] == {
        "models": "ready",
        "problem": None,
        "full_steps": STEPS,
        "preview_steps": 4,
        "prior": True,
        "grid": study["grid"],
    }
    assert any(HOSTILE in label["groups"] for label in study["labels"])
    assert not {"path", "source_digest"} & {label["name"] for label in study["labels"]}
    layout = ready.get("/api/layout?kind=pca").json()
    assert len(layout["places"]) == 20
    assert ready.get("/api/layout?kind=etc").status_code == 422


def test_a_volume_comes_with_x_fastest(client, engine):
    answer = client.get(f"/api/volume?scan={SCAN}")
    volume = np.frombuffer(answer.content, np.uint8).reshape(SHAPE, order="F")
    assert np.array_equal(volume, engine.study.volume(SCAN))


@pytest.mark.slow
def test_a_brain_and_its_regions(ready, engine):
    answer = ready.post("/api/brain", json={"brain": MOVE, "client": "c", "number": 3})
    info = json.loads(answer.headers["x-explore"])
    assert info["shape"] == list(SHAPE)
    assert len(answer.content) == np.prod(SHAPE)
    older = ready.post("/api/brain", json={"brain": MOVE, "client": "c", "number": 2})
    assert older.json() == {"superseded": True}
    assert json.loads(older.headers["x-explore"]) == {"superseded": True}
    found = ready.post("/api/regions", json={"brain": MOVE, "client": "c", "number": 3}).json()
    assert "not volume" in found["measure"]
    changes = [abs(bar["percent"]) for bar in found["bars"]]
    assert changes == sorted(changes, reverse=True)


def test_a_long_request_of_no_stated_length_is_refused(ready):
    answer = ready.post("/api/brain", content=iter([b"[" * 40_000, b"[" * 40_000]))
    assert answer.status_code == 413
    assert "more than" in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "Invalid JSON"),
        (b'{"brain": {"kind": "move"}}', "missing"),
        (b'{"brain": {"kind": "scan", "scan": "../x"}}', "not a scan of this study"),
        (b"[" * 70_000, "more than"),
        (b"[" * 60_000, "Invalid JSON"),
        (b'{"brain": {"kind": "noise", "seed": ' + b"9" * 5_000 + b"}}", "number out of range"),
        (b'{"brain": {"kind": "scan", "scan": "\\ud800"}}', "Invalid JSON"),
        (b'{"brain": {"kind": "scan", "scan": "\xff"}}', "Invalid JSON"),
        (b'{"brain": {"kind": "scan", "scan": "a\\u0000b"}}', "not a scan of this study"),
        (b'{"brain": {"kind": "move", "scan": "a", "direction": "b", "scale": NaN}}', "scale"),
        (b"", "Invalid JSON"),
        (b"null", "should be an object"),
    ],
)
def test_a_wrong_question_is_a_sentence(ready, body, words):
    answer = ready.post("/api/brain", content=body)
    assert answer.status_code in (413, 422)
    assert words in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


@pytest.mark.slow
def test_the_command_writes_the_very_file_that_is_downloaded(
    ready, study_folder, tmp_path, monkeypatch
):
    """The digests are equal, in MNI152 and in native space."""
    monkeypatch.chdir(study_folder)
    for space in ("mni", "native"):
        asked = {"brain": MOVE, "space": space}
        downloaded = ready.post("/api/nifti", json=asked)
        words = ready.post("/api/command", json=asked).json()["command"]
        made = run(words, study_folder, tmp_path / space)
        name = downloaded.headers["content-disposition"].split('"')[1]
        assert (made / name).read_bytes() == downloaded.content


@pytest.mark.slow
@pytest.mark.parametrize(
    "brain",
    [
        {"kind": "scan", "scan": SCAN},
        {"kind": "between", "scan": SCAN, "other": OTHER, "alpha": 0.25},
        {"kind": "vary", "scan": SCAN, "seed": 5},
        {"kind": "noise", "seed": 5},
        {"kind": "noise", "seed": 5, "prior": True},
    ],
    ids=lambda b: b["kind"] + "-prior" * b.get("prior", False),
)
def test_so_do_the_other_commands(ready, study_folder, tmp_path, monkeypatch, brain):
    monkeypatch.chdir(study_folder)
    downloaded = ready.post("/api/nifti", json={"brain": brain})
    words = ready.post("/api/command", json={"brain": brain}).json()["command"]
    made = run(words, study_folder, tmp_path)
    name = downloaded.headers["content-disposition"].split('"')[1]
    assert (made / name).read_bytes() == downloaded.content


def run(words, study_folder, out):
    """Run the command of the page, with another folder for what it writes."""
    listed = shlex.split(words)
    assert listed[-2:] == ["--out", "made"]
    # The engine of these tests names its stores by absolute paths, as a page of elsewhere would.
    result = CliRunner().invoke(command_line, [*listed[1:-1], str(out)])
    assert result.exit_code == 0, f"{words}: {result.output} {result.exception}"
    return out


def test_a_preview_is_not_what_a_command_makes(ready):
    refused = ready.post("/api/nifti", json={"brain": MOVE | {"quality": "preview"}})
    assert refused.status_code == 422
    assert "preview" in refused.json()["error"]
    noise = ready.post("/api/nifti", json={"brain": {"kind": "noise"}, "space": "native"})
    assert "not known" in noise.json()["error"]


def test_brains_of_nobody_have_no_regions(ready):
    refused = ready.post("/api/regions", json={"brain": {"kind": "noise"}})
    assert refused.status_code == 422
    assert "nothing that it is compared with" in refused.json()["error"]


def test_numbers_without_a_client_do_not_stop_downloads(ready):
    ready.post("/api/brain", json={"brain": MOVE, "number": 10**18})
    assert ready.post("/api/nifti", json={"brain": MOVE}).headers["content-type"].endswith("gzip")


def test_a_bug_is_a_sentence_and_shows_on_the_terminal(ready, engine, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("boom")

    monkeypatch.setattr(type(engine), "make", broken)
    answer = ready.post("/api/brain", json={"brain": MOVE})
    assert answer.status_code == 500
    assert "the terminal of `pipeline explore` shows why" in answer.json()["error"]
    assert "boom" not in answer.text
    assert "boom" in caplog.text


def test_the_command_says_all_that_the_page_was_started_with(engine):
    told = replace(engine, options=["--ldae", "/a b/ldae", "--set", "evaluate.clip_x0=2"])
    request = BrainRequest(kind="move", scan=SCAN, direction="-x", scale=-1.5)
    words = shlex.split(command(told, request, "native"))
    assert words[:2] == ["pipeline", "manipulate"]
    assert {"--direction=-x", "--scale=-1.5"} <= set(words)
    assert words[words.index("--ldae") + 1] == "/a b/ldae"
    assert words[words.index("--set") + 1] == "evaluate.clip_x0=2"
    told.study = replace(told.study, volumes=None)
    assert "--volumes" not in command(told, request, "mni")


def test_regions_need_no_volumes_of_the_study(open_engine, study_folder):
    engine = open_engine(study_folder)
    engine.study = replace(engine.study, volumes=None)
    engine.start()
    server = ExploreServer(engine)
    with TestClient(server.app(token="t", hosts=None), headers={"x-explore-token": "t"}) as asking:
        assert asking.post("/api/regions", json={"brain": MOVE}).json()["bars"]


def test_a_film_goes_there_and_back(ready):
    brains = [MOVE | {"scale": scale} for scale in (-1, 0, 1)]
    answer = ready.post(
        "/api/film",
        json={"brains": brains, "captions": ["a", "b", "c"], "voxel": [99, 5, 5]},
    )
    film = Image.open(io.BytesIO(answer.content))
    assert (film.format, film.n_frames) == ("GIF", 4)
    short = ready.post("/api/film", json={"brains": brains, "captions": ["a"], "voxel": [0, 0, 0]})
    assert short.status_code == 422


@pytest.mark.parametrize("sign", ["−", "+", "α", "é"])
def test_the_captions_of_a_film_keep_the_sign_of_a_place(sign):
    font = _font(14)
    missing = bytes(font.getmask("\uffff"))
    assert bytes(font.getmask(sign)) not in (missing, b"")


def test_a_film_as_mp4_plays_the_same_frames(ready):
    av = pytest.importorskip("av", reason="an extra: pip install 'ldae-pipeline[film]'")
    brains = [MOVE | {"scale": scale} for scale in (-1, 0, 1)]
    asked = {"brains": brains, "captions": ["a", "b", "c"], "voxel": [9, 5, 5]}
    gif = Image.open(io.BytesIO(ready.post("/api/film", json=asked).content))
    answer = ready.post("/api/film", json=asked | {"kind": "mp4"})
    assert answer.headers["content-type"] == "video/mp4"
    with av.open(io.BytesIO(answer.content)) as film:
        frames = [frame.to_ndarray(format="gray") for frame in film.decode(video=0)]
        codec = film.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
    assert len(frames) == gif.n_frames
    for i, frame in enumerate(frames):
        gif.seek(i)
        theirs = np.asarray(gif.convert("L"), float)
        far = np.abs(frame[: gif.height, : gif.width] - theirs)
        assert far.mean() < 4


def test_without_pyav_an_mp4_is_a_sentence_before_any_brain_is_made(ready, monkeypatch):
    monkeypatch.setattr("pipeline.explore.film.find_spec", lambda _: None)
    brains = [MOVE | {"scale": scale} for scale in (-1, 1)]
    asked = {"brains": brains, "captions": ["a", "b"], "voxel": [0, 0, 0], "kind": "mp4"}
    monkeypatch.setattr(Engine, "make", None)
    answer = ready.post("/api/film", json=asked)
    assert answer.status_code == 422
    assert "pip install 'ldae-pipeline[film]'" in answer.json()["error"]


def test_a_native_file_lies_on_the_grid_of_the_scan(ready, engine, tmp_path):
    content = ready.post("/api/nifti", json={"brain": MOVE, "space": "native"}).content
    (tmp_path / "a.nii.gz").write_bytes(content)
    image = nib.Nifti1Image.from_filename(tmp_path / "a.nii.gz")
    assert image.shape == engine.scan(SCAN).native.native_shape


def test_a_busy_port_gives_way_to_the_next(caplog):
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        with listen("127.0.0.1", port) as listening:
            assert listening.getsockname()[1] > port
        assert f"port {port} is taken" in caplog.text
    with pytest.raises(ContractError, match=r"give another --port or --host"):
        listen("192.0.2.1", 8765)  # an address that is nobody's (RFC 5737)
    with pytest.raises(ContractError, match=r"--host no\.such\.name\.invalid: no address"):
        listen("no.such.name.invalid", 8765)


def test_addresses_are_written_as_a_browser_reads_them():
    assert shown_host("127.0.0.1") == "127.0.0.1"
    assert shown_host("::1") == "[::1]"
    assert shown_host("0.0.0.0") == shown_host("::") == socket.gethostname()
