"""The command line as a contract: help with an example, one-line errors, names in four places."""

import logging
import re
import resource
import subprocess
import sys

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.runtime.progress import few
from schemas.errors import ParamsError
from schemas.params import Params
from stages.cli import STAGES, TOOLS, app, main
from stages.messages import from_here
from stages.params_file import load_params, write_params
from tests.support.imaging_fixtures import save
from tests.support.paths import ROOT

COMMANDS = [*STAGES, *TOOLS]


@pytest.fixture
def pipeline(monkeypatch, capsys):
    """Run the command in this process; return exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["pipeline", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code or 0, *capsys.readouterr()

    return run


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name):
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert f"Example: pipeline {name}" in re.sub(r"\s+", " ", result.output)


def test_help_imports_nothing_heavy():
    code = (
        "import sys, stages.cli\n"
        "heavy = {'torch', 'monai', 'zarr', 'pandas', 'pydantic', 'dask', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime < 10  # of the processor, however busy it is


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["info", "MODEL"], "weights_sha256"),
        (["encode", "--input", "nowhere", "--out", "out.zarr"], "no such file or folder"),
    ],
)
def test_commands_that_only_look_or_refuse_do_not_wait_for_torch(tmp_path, arguments, said):
    (tmp_path / "config.json").write_text('{"kind": "ae", "weights_sha256": "0", "metrics": {}}')
    arguments = [str(tmp_path) if word == "MODEL" else word for word in arguments]
    code = (
        "import sys; from stages.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'monai', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout + done.stderr


def test_one_name_in_four_places():
    dvc = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    names = [name.replace("-", "_") for name in STAGES]
    assert list(dvc) == names
    assert [name for name in Params.model_fields if name != "autoencoder"] == names
    for name in names:
        assert (ROOT / "stages" / f"{name}.py").is_file()
        assert f"stages/{name}.py" in dvc[name]["deps"]
        assert name in dvc[name]["params"]
        assert dvc[name]["cmd"].startswith(f"pipeline {name.replace('_', '-')} ")


def test_dependencies_of_dvc_exist():
    dvc = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    deps = {d for stage in dvc.values() for d in stage["deps"]}
    code = {d for d in deps if d.startswith(("stages/", "pipeline/"))}
    assert not [d for d in code if not (ROOT / d).exists()]


def test_params_yaml_is_the_demo_preset_with_every_key():
    assert load_params(ROOT / "params.yaml", []) == Params()
    written = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert written == Params().model_dump(mode="json")


def test_params_yaml_is_what_init_writes_to_the_byte(tmp_path):
    write_params(Params(), tmp_path / "params.yaml")
    assert (tmp_path / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()


def test_written_parameters_are_read_back_whatever_they_hold(tmp_path):
    given = [
        "cohort.columns={age: AGE, 'a: b': \"it's #1\"}",
        "cohort.bids_filter={run: [1, 2], ceagent: null}",
        "cohort.prefer=['yes', '1e-3', 'é']",
        "train_ae.kl_weight=1.0e-7",
    ]
    params = load_params(None, given)
    write_params(params, tmp_path / "params.yaml")
    assert load_params(tmp_path / "params.yaml", []) == params


@pytest.mark.parametrize("preset", sorted((ROOT / "params").glob("*.yaml")), ids=lambda p: p.stem)
def test_presets_are_valid_and_read_back_as_init_writes_them(preset, tmp_path):
    params = load_params(preset, [])
    assert params != Params()
    write_params(params, tmp_path / "params.yaml")
    assert load_params(tmp_path / "params.yaml", []) == params


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--set", "train_ae.stepz=3"], "did you mean steps?"),
        (["--set", "train_ldae.rough_weight=0.02"], "no longer used, delete it"),
        (
            ["--set", "train_ae.steps=many"],
            "--set train_ae.steps: expected a valid integer, got 'many'",
        ),
        (["--wrokers", "2"], "wrokers"),
        (["--workers", "some"], "expected a valid integer. See pipeline train-ldm --help"),
        (["--set", "train_ae.steps"], "expected section.key=value"),
        (
            ["--set", "encode.precision=fp64"],
            "--set encode.precision: expected 'fp32' or 'bf16' or 'auto', got 'fp64'",
        ),
        (["--params", "nowhere.yaml"], "nowhere.yaml"),
        (["--device", "cuda:99"], "cuda:99"),
    ],
)
def test_mistakes_are_one_line_with_the_remedy(
    pipeline, latents_path, tmp_path, arguments, expected
):
    stores = ("--latents", str(latents_path), "--out", str(tmp_path / "ldm"))
    code, _, errors = pipeline("train-ldm", *stores, *arguments)
    assert code == 2
    assert expected in errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "ldm").exists()


def test_a_store_may_be_the_working_folder(pipeline, latents_path, monkeypatch, tmp_path):
    monkeypatch.chdir(latents_path)
    assert pipeline("verify", ".")[0] == 0
    assert pipeline("info", ".")[0] == 0
    monkeypatch.chdir(tmp_path)
    code, _, errors = pipeline("verify", ".")
    assert (code, errors.count("\n")) == (2, 1)
    assert "expected a Zarr store" in errors


def test_what_the_disk_refuses_is_one_line(pipeline, latents_path, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    asked = ("train-ldm", "--latents", str(latents_path), "--out", str(file / "ldm"))
    code, _, errors = pipeline(*asked, "--set", "train_ldm.steps=1")
    assert code == 2
    assert "file" in errors
    assert errors.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in errors


def test_paths_in_messages_are_seen_from_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "far" / "off").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "off")
    here = str(tmp_path)
    for text, expected in {
        f"{here}/data/x.nii: broken": "data/x.nii: broken",
        f"{here}/data/tables/../../bids/x y.nii: broken": "bids/x y.nii: broken",
        f"a ({here}/a.nii) and '{here}/b.nii'": "a (a.nii) and 'b.nii'",
        "data/tables/../scans/x.nii": "data/scans/x.nii",
        "../other/x.nii": "../other/x.nii",
        "../../other/a/../x.nii": "../../other/x.nii",
        "link/../x.nii": "link/../x.nii",
        f"/mnt{here}/x.nii": f"/mnt{here}/x.nii",
        f"{here}: no study": f"{here}: no study",
        "/elsewhere/x.nii": "/elsewhere/x.nii",
    }.items():
        assert from_here(text) == expected


def test_refused_scans_are_named_by_file_from_here(pipeline, tmp_path, monkeypatch):
    (tmp_path / "study").mkdir()
    (tmp_path / "scans").mkdir()
    save(tmp_path / "scans" / "a.nii")
    (tmp_path / "scans" / "b.nii").write_bytes(b"no image")
    (tmp_path / "study" / "people.csv").write_text(
        "subject,path\na,../scans/a.nii\nb,../scans/b.nii\n"
    )
    monkeypatch.chdir(tmp_path)
    code, printed, _ = pipeline(
        "cohort", "--input", "study/people.csv", "--out", "out", "--dry-run"
    )
    assert code == 0
    assert "  scans/a.nii" in printed
    assert str(tmp_path) not in printed
    assert "/../" not in printed


def test_lists_that_are_cut_say_how_to_see_all(caplog):
    names = [f"sub-{i}" for i in range(8)]
    assert few(names) == "sub-0, sub-1, sub-2, sub-3, sub-4 and 3 more (--verbose lists all)"
    assert few(names[:5]) == "sub-0, sub-1, sub-2, sub-3, sub-4"
    with caplog.at_level(logging.DEBUG, logger="pipeline"):
        assert few(names) == ", ".join(names)


def test_docs_prints_pages_and_where_they_lie(pipeline):
    code, printed, _ = pipeline("docs")
    assert code == 0
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"} <= set(printed.split())
    assert pipeline("docs", "FAQ.md")[1] == (ROOT / "docs" / "faq.md").read_text()
    assert pipeline("docs", "faq", "--path")[1].strip() == str(ROOT / "docs" / "faq.md")
    code, _, errors = pipeline("docs", "aplications")
    assert (code, errors) == (
        2,
        "error: docs aplications: no such page; did you mean applications?\n",
    )


@pytest.mark.slow
def test_init_counts_people_where_it_speaks_of_people(pipeline, tmp_path):
    for name in ("a0", "a1", "b0"):
        save(tmp_path / f"{name}.nii")
    (tmp_path / "people.csv").write_text(
        "subject,session,path,group\na,1,a0.nii,HC\na,2,a1.nii,HC\nb,1,b0.nii,MCI\n"
    )
    code, printed, _ = pipeline(
        "init", str(tmp_path / "s"), "--input", str(tmp_path / "people.csv")
    )
    assert code == 0
    assert "ready. 3 scans of 2 subjects found." in printed
    assert "diagnosis holds HC (1), MCI (1), not CN and AD (counts of subjects)" in printed


def test_a_damaged_config_is_one_line(pipeline, tmp_path):
    (tmp_path / "config.json").write_text("{")
    code, _, errors = pipeline("info", str(tmp_path))
    assert code != 0
    assert "config.json: no model's config.json" in errors


def test_a_command_in_a_study_takes_its_parameters(pipeline, latents_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("train_ldm: {stepz: 3}\n")
    asked = ("train-ldm", "--latents", str(latents_path), "--out", "ldm")
    assert "params.yaml: unknown key train_ldm.stepz" in pipeline(*asked)[2]
    (tmp_path / "other.yaml").write_text("train_ldm: {lr: -1}\n")
    assert "other.yaml: train_ldm.lr" in pipeline(*asked, "--params", "other.yaml")[2]


def test_info_and_verify_of_a_store(pipeline, latents_path):
    assert "latents" in pipeline("info", str(latents_path))[1]
    code, printed, _ = pipeline("verify", str(latents_path))
    assert (code, printed.strip()) == (0, f"{latents_path}: sound")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("train_ldm.denoiser.attention_levels=[9]", "the levels are 0 to 2"),
        ("train_ldm.diffusion.beta_end=2", "beta_end"),
        ("train_ldm.diffusion.num_train_timesteps=1", "num_train_timesteps"),
        ("train_ldm.scale=0", "scale"),
        ("train_ldm.steps=yes", "train_ldm.steps: expected a number, got True"),
        ("train_ldm={lr: true}", "--set train_ldm.lr: expected a number, got True"),
        ("train_ldm.steps={a: 1, a: 2}", "a is given twice, line 1"),
        ("cohort.columns=path", "cohort.columns: expected keys with values, {key: value}"),
        ("cohort=3", "--set cohort: expected keys with values, got 3"),
        ("probe.regression=[sex]", "sex is in classification and in regression"),
    ],
)
def test_values_without_meaning_are_refused(change, expected):
    with pytest.raises(ParamsError, match=expected):
        load_params(None, [change])


def test_a_section_in_set_changes_the_keys_that_it_names_alone(tmp_path):
    (tmp_path / "p.yaml").write_text(
        "preprocess: {grid: {zooms: 1.5}}\nprobe: {classification: {sex: [F, M]}}\n"
    )
    params = load_params(
        tmp_path / "p.yaml",
        ["preprocess={grid: {shape: [9, 8, 7]}}", "probe.classification={group: [A, B]}"],
    )
    assert (params.preprocess.grid.shape, params.preprocess.grid.zooms) == ((9, 8, 7), 1.5)
    assert set(params.probe.classification) == {"group"}  # a value of its own, no section


def test_a_label_that_yaml_reads_as_true_or_false_wants_quotes(tmp_path):
    (tmp_path / "p.yaml").write_text("probe: {classification: {focal: [no, yes], stage: [0, 1]}}\n")
    with pytest.raises(ParamsError, match=r"classification\.focal\.0: .*put the label in quotes"):
        load_params(tmp_path / "p.yaml", [])
    (tmp_path / "p.yaml").write_text("probe: {classification: {focal: ['no', 'yes']}}\n")
    kept = load_params(tmp_path / "p.yaml", []).probe.classification
    assert kept == {"focal": ("no", "yes")}


def test_a_section_whose_lines_are_all_comments_has_the_defaults(tmp_path):
    (tmp_path / "p.yaml").write_text("train_ldm:\n  # steps: 3\npreprocess:\n  grid:\n")
    assert load_params(tmp_path / "p.yaml", []) == Params()
    assert load_params(tmp_path / "p.yaml", ["train_ldm.steps=4"]).train_ldm.steps == 4


def test_a_key_given_twice_is_refused(tmp_path):
    (tmp_path / "p.yaml").write_text("train_ldm: {steps: 3}\nencode: {}\ntrain_ldm: {lr: 1}\n")
    with pytest.raises(ParamsError, match=r"p\.yaml: no valid YAML \(train_ldm is given twice"):
        load_params(tmp_path / "p.yaml", [])


def test_set_overrides_the_file(tmp_path):
    (tmp_path / "p.yaml").write_text("train_ae: {steps: 7}\n")
    params = load_params(tmp_path / "p.yaml", ["train_ae.lr=0.5", "cohort.phantom.subjects=3"])
    assert (params.train_ae.steps, params.train_ae.lr, params.cohort.phantom.subjects) == (
        7,
        0.5,
        3,
    )
