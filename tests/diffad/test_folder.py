from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from certify.checks import InputError
from diffad import load_detector
from diffad.baselines.pixel_mean import PixelMean
from diffad.baselines.pixel_nn import PixelNN

IMAGES = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    PixelNN(k=2).fit(IMAGES, calibration=IMAGES, seed=3).save_pretrained(tmp_path / "nn")
    return tmp_path / "nn"


def edit(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def refused(folder: Path, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_detector(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_folder_holds_config_tensors_and_card_and_nothing_else(saved: Path) -> None:
    assert sorted(path.name for path in saved.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    config = json.loads((saved / "config.json").read_text())
    assert config["_class_name"] == "PixelNN"
    assert config["arguments"] == {"k": 2}
    assert config["image_shape"] == [1, 4, 4]
    assert config["fit"] == {"images": 30, "seed": 3}
    card = (saved / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: diffad\n")
    assert "pixel_nn" in card
    assert "constant of the score: 2.0" in card


def test_saving_over_an_older_detector_replaces_it(saved: Path) -> None:
    PixelMean().fit(IMAGES).save_pretrained(saved)
    assert isinstance(load_detector(saved), PixelMean)


def test_wrong_class_is_refused(saved: Path) -> None:
    with pytest.raises(InputError, match=r"holds a PixelNN .* not a PixelMean"):
        PixelMean.from_pretrained(saved)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "nearest"}, "unknown detector 'nearest', allowed are pixel_mean"),
        ({"name": "pca"}, "holds a PixelNN"),
        ({"arguments": {"k": 2, "metric": "l1"}}, "metric"),
        ({"arguments": {"k": 0}}, "need at least 1"),
        ({"arguments": {"k": 3}}, "do not belong together"),
        ({"arguments": None}, "save the detector again"),
        ({"image_shape": [1, 4]}, "save the detector again"),
        ({"image_shape": [1, 2, 8]}, "do not belong together"),
        ({"threshold": "high"}, "save the detector again"),
        ({"extra": 1}, r"missing nothing, unknown \['extra'\]"),
    ],
)
def test_edited_configurations_are_refused(saved: Path, changes: dict[str, object], words: str) -> None:
    edit(saved, **changes)
    with pytest.raises(InputError, match=words) as caught:
        load_detector(saved)
    assert "\n" not in str(caught.value)


def test_missing_keys_are_named(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    del config["threshold"]
    (saved / "config.json").write_text(json.dumps(config))
    refused(saved, r"missing \['threshold'\]")


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_broken_json_is_refused(saved: Path, text: str) -> None:
    (saved / "config.json").write_text(text)
    refused(saved, "config.json")


def test_truncated_tensors_are_refused(saved: Path) -> None:
    tensors = saved / "model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-7])
    refused(saved, "cannot be read")


def test_one_flipped_bit_is_refused(saved: Path) -> None:
    tensors = saved / "model.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-3] ^= 1
    tensors.write_bytes(content)
    refused(saved, "do not belong together")


def test_a_pickle_is_never_loaded(saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(pickle.dumps({"bank": [1.0]}))
    refused(saved, "cannot be read")


@pytest.mark.parametrize("change", ["missing", "unknown", "dtype"])
def test_other_tensors_are_refused(saved: Path, change: str) -> None:
    bank = load_file(saved / "model.safetensors")["bank"]
    tensors = {
        "missing": {"rows": bank},
        "unknown": {"bank": bank, "more": bank.clone()},
        "dtype": {"bank": bank.double()},
    }[change]
    save_file(tensors, saved / "model.safetensors")
    refused(saved, {"missing": r"missing \['bank'\]", "unknown": "more", "dtype": "float64"}[change])


def test_missing_files_are_named(saved: Path, tmp_path: Path) -> None:
    (saved / "model.safetensors").unlink()
    refused(saved, "holds no model.safetensors")
    (saved / "config.json").unlink()
    refused(saved, "holds no config.json")
    with pytest.raises(InputError, match="no such folder"):
        PixelNN.from_pretrained(tmp_path / "nowhere")
