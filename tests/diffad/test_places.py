"""Where a detector's data lie on this machine: kept beside the manifests, not in them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from certify import console
from certify.checks import InputError
from diffad import places
from diffad.cli import main
from diffad.manifest import without_paths


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


def manifest(options: dict, detector: str = "a", data: str = "d") -> dict:
    return {"detectors": {"x": detector}, "data": {"fingerprint": data, "options": without_paths(options)}}


FAR = {"spec": "digits", "outliers": ("rest", "folder:/far/away"), "seed": 0}


def test_only_absolute_paths_are_kept(cache):
    near = {**FAR, "outliers": ("rest", "folder:near/by")}
    places.remember_places(manifest(near), near)
    assert not cache.exists()
    assert places.remembered_places(manifest(near)) == {}
    places.remember_places(manifest(FAR), FAR)
    assert places.remembered_places(manifest(FAR)) == {"spec": "digits", "outliers": FAR["outliers"]}


def test_each_training_has_its_own(cache):
    """Networks of equal weights may have been set against other outliers, or trained on other data of that name."""
    places.remember_places(manifest(FAR), FAR)
    one_class = {"spec": "digits", "outliers": (), "seed": 0}
    for other in (manifest(one_class), manifest(FAR, detector="b"), manifest(FAR, data="e")):
        assert places.remembered_places(other) == {}


def test_a_relative_path_takes_the_place_of_an_absolute_one(cache):
    absolute, relative = {"spec": "folder:/far/parts"}, {"spec": "folder:parts"}
    places.remember_places(manifest(absolute), absolute)
    assert places.remembered_places(manifest(relative)) == absolute
    places.remember_places(manifest(relative), relative)
    assert places.remembered_places(manifest(relative)) == {}


def test_a_cache_that_cannot_be_written_costs_nothing_and_one_that_cannot_be_read_is_named(cache, capsys):
    cache.write_text("a file where a folder belongs")
    places.remember_places(manifest(FAR), FAR)
    assert "could not be kept" in capsys.readouterr().err
    cache.unlink()
    places.remember_places(manifest(FAR), FAR)
    next(cache.rglob("*.json")).write_text("{")
    with pytest.raises(InputError, match="delete it"):
        places.remembered_places(manifest(FAR))


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
