"""A folder is data: it runs no code but the user's own, and notices when that was edited."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from certify.checks import InputError
from diffad import load_detector
from diffad.interop import CallableDetector, as_detector
from diffad.interop.trust import VARIABLE

NORMALS = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0))
MODULE = "import pickle\n\n\ndef brightness(images):\n    return images.mean((1, 2, 3))\n"
NAME = "scores_of_the_current_folder"


class Payload:
    """Unpickling it leaves a file behind."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("touched", "w")


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a function whose module lies in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    Path(f"{NAME}.py").write_text(MODULE)
    CallableDetector(f"{NAME}:brightness").fit(NORMALS).save_pretrained("saved")
    yield tmp_path / "saved"
    sys.modules.pop(NAME, None)


def rename(saved: Path, what: str) -> None:
    """Name another function in a folder, with options that hand it an array."""
    config = json.loads((saved / "config.json").read_text())
    config["arguments"] = {"what": what, "options": {"numpy": True}}
    (saved / "config.json").write_text(json.dumps(config))


def test_the_users_own_function_is_loaded(saved: Path) -> None:
    assert torch.equal(load_detector(saved).score(NORMALS), NORMALS.mean((1, 2, 3)))


@pytest.mark.parametrize("what", ["pickle:loads", f"{NAME}:pickle.loads"])
def test_a_folder_cannot_have_its_images_unpickled(saved: Path, what: str) -> None:
    rename(saved, what)
    payload = pickle.dumps(Payload())
    pixels = np.zeros(16, np.float32)
    pixels.view(np.uint8)[: len(payload)] = np.frombuffer(payload, np.uint8)
    tensors = load_file(saved / "model.safetensors")
    tensors["probe"] = torch.from_numpy(pixels).reshape(1, 1, 4, 4)
    save_file(tensors, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="folder would run"):
        load_detector(saved)
    assert not Path("touched").exists()


def test_code_inside_the_folder_is_not_run(saved: Path) -> None:
    (saved / "inside.py").write_text("open('touched', 'w').close()\nscore = len\n")
    rename(saved, "saved.inside:score")
    with pytest.raises(InputError, match="no module of the current folder"):
        load_detector(saved)
    assert not Path("touched").exists()


def test_modules_that_the_user_has_listed_may_lie_elsewhere(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = saved.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.syspath_prepend(saved.parent)
    with pytest.raises(InputError, match=f"{VARIABLE}={NAME}"):
        load_detector(saved)
    monkeypatch.setenv(VARIABLE, f"other, {NAME}")
    assert load_detector(saved).score(NORMALS).shape == (12,)


def test_an_edited_file_is_another_detector(saved: Path) -> None:
    before = load_detector(saved).fingerprint()
    path = Path(f"{NAME}.py")  # the same scores for every image of the probe
    path.write_text(
        MODULE.replace("return images.mean((1, 2, 3))", "return images.mean((1, 2, 3)).clamp(0.01)")
    )
    importlib.invalidate_caches()
    sys.modules.pop(NAME)
    with pytest.raises(InputError, match="its file was edited"):
        load_detector(saved)
    again = CallableDetector(f"{NAME}:brightness").fit(NORMALS)
    assert again.fingerprint() != before
    assert torch.equal(again.probe_scores, load_file(saved / "model.safetensors")["probe_scores"])


def test_a_class_typed_into_a_notebook_is_a_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    class Brightness(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((1, 2, 3))

    Brightness.__module__ = "__main__"
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))  # has no file there
    detector = as_detector(Brightness()).fit(NORMALS)
    assert detector.has_gradient
    assert torch.equal(detector.score(NORMALS), NORMALS.mean((1, 2, 3)))
