"""Folders that models are written to: nothing of the user's is overwritten."""

import json
from pathlib import Path

import pytest
import torch

from pipeline.models.bundled import adopt_autoencoder, export_bundled
from pipeline.models.conversion.checkpoint import load_tensors
from pipeline.models.conversion.monai_export import export_monai_bundle
from pipeline.models.conversion.monai_import import import_autoencoder
from pipeline.models.model_folder import CARD, CONFIG, WEIGHTS, check_model_folder
from schemas.errors import ContractError

CPU = torch.device("cpu")


@pytest.mark.parametrize("names", [[CARD], ["scan.nii"], [CONFIG], [CARD, "log.csv"], ["sub-1/"]])
def test_a_model_is_not_written_among_other_files(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_text("mine")
    with pytest.raises(ContractError, match="holds other files than a model's"):
        check_model_folder(tmp_path, kind="ae")


def test_a_model_of_another_maker_is_not_written_over(tmp_path: Path) -> None:
    for name in (WEIGHTS, CARD):
        (tmp_path / name).write_text("theirs")
    (tmp_path / CONFIG).write_text(json.dumps({"model_type": "unet"}))
    with pytest.raises(ContractError, match=r"\(README.md, config.json\)"):
        check_model_folder(tmp_path, kind="ae")


@pytest.mark.parametrize(
    "files",
    [
        {},
        {".gitignore": "x", "log.csv": "step", "pictures/1.png": ""},
        {WEIGHTS: "", CARD: "half written"},
        {WEIGHTS: "", CARD: "", CONFIG: "damaged {"},
        {WEIGHTS: "", CARD: "", CONFIG: '{"weights_sha256": "x"}', "notes.txt": "mine"},
    ],
)
def test_models_and_what_trainings_left_are_written_over(
    tmp_path: Path, files: dict[str, str]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    check_model_folder(tmp_path, kind="ae")
    check_model_folder(tmp_path / "new", kind="ae")


def test_a_model_of_another_kind_or_a_file_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text('{"weights_sha256": "x", "kind": "ae"}')
    (tmp_path / WEIGHTS).write_text("")
    with pytest.raises(ContractError, match="holds a model of kind 'ae', which one of kind 'ldae'"):
        check_model_folder(tmp_path, kind="ldae")
    with pytest.raises(ContractError, match="a file; choose a folder"):
        check_model_folder(tmp_path / WEIGHTS, kind="ae")


def test_every_import_and_export_refuses_a_users_folder(tmp_path: Path) -> None:
    from pipeline.models.conversion.published_import import import_ldae

    (tmp_path / CARD).write_text("# My scans")
    source = tmp_path / "x.pt"
    writers = {
        "import-ae": lambda: import_autoencoder(source, tmp_path, device=CPU),
        "import-ldae": lambda: import_ldae(
            None, tmp_path, ae=source, device=CPU, choices=None  # type: ignore[arg-type]
        ),
        "adopt": lambda: adopt_autoencoder(source, tmp_path, grid={}),
        "export bundled": lambda: export_bundled(source, tmp_path),
        "export monai": lambda: export_monai_bundle(source, tmp_path),
    }  # fmt: skip
    for write in writers.values():
        with pytest.raises(ContractError, match=r"holds other files than a (model|bundle)'s"):
            write()
    assert (tmp_path / CARD).read_text() == "# My scans"


def test_medvae_is_refused_with_what_is_missing(tmp_path: Path) -> None:
    # Names as the package's first 3D model has them: levels, and blocks in them.
    names = ("encoder.conv_in", "encoder.down.0.block.0.conv1", "decoder.up.0.block.1.conv1")
    state = {f"{name}.weight": torch.ones(4, 1, 3, 3, 3) for name in names}
    torch.save({"state_dict": state}, tmp_path / "medvae.ckpt")
    with pytest.raises(ContractError, match=r"MedVAE .* one residual block a level more"):
        import_autoencoder(tmp_path / "medvae.ckpt", tmp_path / "ae", device=CPU)
    assert not (tmp_path / "ae").exists()


@pytest.mark.parametrize(
    "content", [b"subject,path\n0,a.nii\n", b"", b"\x1f\x8b\x08\x00xyz", b"\x89PNG\r\n", b"# Title"]
)
@pytest.mark.parametrize("name", ["people.csv", "x.pt"])
def test_what_is_no_checkpoint_is_called_so(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(
        ContractError, match=rf"{name}: not a checkpoint; expected \.safetensors, \.pt"
    ):
        load_tensors(tmp_path / name)
