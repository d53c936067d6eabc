"""Where a detector's data lie on this machine: kept beside the manifests, not in them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from certify import console
from diffad import places
from diffad.cli import main


def write_folder(root: Path) -> Path:
    generator = np.random.Generator(np.random.Philox(0))
    for part, count in (("train/good", 40), ("test/good", 4), ("test/odd", 4)):
        (root / part).mkdir(parents=True)
        for place in range(count):
            pixels = generator.integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / part / f"{place}.png")
    return root


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(places, "user_cache_path", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache"


def test_only_absolute_paths_are_kept(cache):
    places.remember_places(["a"], {"spec": "digits", "outliers": ("rest", "folder:near/by"), "seed": 0})
    assert not cache.exists()
    assert places.remembered_places(["a"]) == {}
    places.remember_places(
        ["a", "b"], {"spec": "digits", "outliers": ("rest", "folder:/far/away"), "seed": 0}
    )
    kept = {"spec": "digits", "outliers": ("rest", "folder:/far/away")}
    assert places.remembered_places(["c", "b"]) == kept


def test_a_cache_that_cannot_be_written_costs_nothing(cache, capsys):
    cache.write_text("a file where a folder belongs")
    places.remember_places(["a"], {"spec": "folder:/far/away"})
    assert "could not be kept" in capsys.readouterr().err


def test_an_absolute_path_is_found_again_but_stands_in_no_manifest(cache, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = write_folder(tmp_path / "parts")
    model = tmp_path / "model"
    fit = ["fit", "--detector", "pixel_mean", "--data", f"folder:{data}", "--normal_class", "good"]
    assert main([*fit, "--resolution", "8", "--output_dir", str(model)]) == 0
    assert str(tmp_path) not in (model / "manifest.json").read_text().replace(str(model), "")
    assert main(["score", "--detector", str(model), "--json"]) == 0
    assert "auroc" in json.loads(capsys.readouterr().out.splitlines()[-1])
    shutil.move(data, tmp_path / "elsewhere")
    assert main(["score", "--detector", str(model)]) == console.FAILED
    assert "say where it is now with --data" in capsys.readouterr().err
    assert main(["score", "--detector", str(model), "--data", f"folder:{tmp_path / 'elsewhere'}"]) == 0
