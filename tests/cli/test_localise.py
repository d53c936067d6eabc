"""`diffad localise`: from a folder of images with masks to a table, clean and attacked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from certify import console
from diffad.cli import main
from diffad.data import load_data
from diffad.evidence import read_evidence
from diffad.localisation import pixel_auroc, pro
from diffad.registry import load_detector
from diffad.results import read_run

SIDE = 12


@pytest.fixture
def tiles(tmp_path: Path) -> str:
    """Dark tiles; the bright spots and the edges on some of the test tiles are masked."""
    root, rng = tmp_path / "tiles", np.random.default_rng(0)

    def write(path: Path, pixels: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)

    for part, count in (("train/good", 60), ("test/good", 6), ("test/spot", 4), ("test/edge", 4)):
        for i in range(count):
            pixels = rng.integers(40, 90, (SIDE, SIDE))
            mask = np.zeros((SIDE, SIDE))
            if part != "train/good" and part != "test/good":
                mask[(slice(2 + i, 5 + i), slice(3, 6)) if "spot" in part else (slice(None), slice(0, 2))] = (
                    255
                )
                write(root / part.replace("test", "ground_truth") / f"{i:03d}_mask.png", mask)
            write(root / part / f"{i:03d}.png", np.where(mask > 0, pixels + 60, pixels))
    return f"mvtec:{root}"


def options(tiles: str, *rest: str, detector: str = "pixel_nn") -> list[str]:
    return ["--detector", detector, "--data", tiles, "--resolution", str(SIDE), *rest]


def localised(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict]:
    assert main(["localise", *arguments, "--resamples", "50", "--json"]) == console.DONE
    found: list[dict] = json.loads(capsys.readouterr().out.splitlines()[-1])["localisation"]
    return found


def failed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["localise", *arguments, "--resamples", "5"]) == console.FAILED
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def attack(tiles: str, *rest: str, detector: str = "pixel_nn") -> None:
    words = [
        "--norm",
        "linf",
        "--curve",
        "8/255,32/255",
        "--steps",
        "5",
        "--checks",
        "none",
        "--output_dir",
        "attacked",
    ]
    assert main(["attack", *options(tiles, *words, *rest, detector=detector)]) == console.DONE


def test_clean_and_attacked_maps_are_judged_as_by_hand(tiles, capsys) -> None:
    attack(tiles)
    rows = localised(options(tiles, "--attack", "attacked", "--output_dir", "found"), capsys)
    split = load_data(tiles, resolution=SIDE)
    detector = load_detector("pixel_nn").fit(split.train.images)
    run, masks = read_run("attacked"), split.test.masks.numpy()
    kept = [read_evidence(run.folder, one).images for one in run.conditions if one.condition == "attack"]
    assert [(row["condition"], row["radius"]) for row in rows] == [
        ("clean", 0.0),
        ("attack", 8 / 255),
        ("attack", 32 / 255),
    ]
    for row, images in zip(rows, [split.test.images, *kept], strict=True):
        maps = detector.anomaly_map(images).numpy()
        assert row["pixel_auroc"] == pixel_auroc(maps, masks)
        assert row["pro"] == pro(maps, masks, 0.3)
        for name in ("pixel_auroc", "pro", "image_auroc"):
            low, high = row[f"{name}_interval"]
            assert 0.0 <= low <= row[name] <= high <= 1.0
        assert (row["normals"], row["anomalies"], row["regions"]) == (6, 8, 8)
        assert row["kinds"].keys() == {"edge", "spot"}
    kind = split.test.take([i for i, name in enumerate(split.test.defects) if name in ("good", "spot")])
    spots = detector.anomaly_map(kind.images).numpy()
    assert rows[0]["kinds"]["spot"]["pro"] == pytest.approx(pro(spots, kind.masks.numpy(), 0.3), abs=1e-12)
    assert rows[0]["pixel_auroc"] > 0.9
    assert rows[0]["pixel_auroc"] > rows[1]["pixel_auroc"] > rows[2]["pixel_auroc"]


def test_a_folder_gathers_detectors_and_keeps_a_manifest_of_each(tiles, capsys) -> None:
    for detector in ("pixel_nn", "pca", "pixel_nn"):
        localised(options(tiles, "--output_dir", "found", detector=detector), capsys)
    stored = json.loads(Path("found/localisation.json").read_text())
    assert [row["detector"] for row in stored["localisation"]] == ["pca", "pixel_nn"]
    manifest = json.loads(Path("found/manifest.json").read_text())
    assert manifest["detectors"].keys() == {"pca", "pixel_nn"}
    assert [entry["command"] for entry in manifest["commands"]] == ["diffad localise"] * 2
    assert stored["data"] == manifest["data"]["name"] == "mvtec:tiles"
    for detector in ("pca", "pixel_nn"):
        with Image.open(f"found/{detector}.png") as picture:
            assert picture.size[1] > picture.size[0] / 2
            assert len(set(np.asarray(picture.convert("L")).ravel().tolist())) > 50
    assert "holds results of" in failed(options(tiles, "--limit", "2", "--output_dir", "found"), capsys)


def test_the_table_names_threats_and_intervals(tiles, capsys) -> None:
    attack(tiles)
    capsys.readouterr()
    assert main(["localise", *options(tiles, "--attack", "attacked", "--resamples", "20")]) == console.DONE
    table = capsys.readouterr().out
    for words in ("clean", "attacked, Linf 8/255", "pixel AUROC", "chance 0.15", "attack of the image score"):
        assert words in table
    assert Path("runs/localise-pixel_nn-mvtec-tiles/localisation.json").is_file()


def test_the_maps_of_a_score_without_a_proven_constant_are_judged_under_attack_too(
    trained, tiles, capsys
) -> None:
    where = ["--detector", str(trained), "--data", tiles, "--resolution", "8", "--limit", "3"]
    attacked = [
        "--smoothing",
        "plain",
        "--eps",
        "0.5",
        "--steps",
        "2",
        "--checks",
        "none",
        "--output_dir",
        "plain",
    ]
    assert main(["attack", *where, *attacked]) == console.DONE
    capsys.readouterr()
    rows = localised([*where, "--attack", "plain"], capsys)
    assert [(row["condition"], row["radius"]) for row in rows] == [("clean", 0.0), ("attack", 0.5)]
    assert rows[0]["pixel_auroc"] != rows[1]["pixel_auroc"]


def test_what_does_not_fit_together_is_refused(tiles, capsys) -> None:
    digits = ["--detector", "pixel_nn", "--data", "digits", "--resolution", "8", "--limit", "3"]
    assert "has no masks" in failed(digits, capsys)
    isolation = options(tiles, "--output_dir", "elsewhere", detector="sklearn:IsolationForest")
    assert "gives no anomaly map" in failed(isolation, capsys)
    assert "max_fpr" in failed(options(tiles, "--max_fpr", "1.5"), capsys)
    attack(tiles)
    assert "attacked other images" in failed(options(tiles, "--attack", "attacked", "--limit", "3"), capsys)
    message = failed(options(tiles, "--attack", "attacked", detector="pca"), capsys)
    assert "holds no attack on this pca, but on pixel_nn" in message
    assert "run of another command" in failed(options(tiles, "--output_dir", "attacked"), capsys)
    shutil.rmtree("attacked/attacked")
    assert "kept no attacked image" in failed(options(tiles, "--attack", "attacked"), capsys)
    assert "no manifest.json here" in failed(options(tiles, "--attack", "nowhere"), capsys)


@pytest.mark.parametrize("detector", ["pca", "patch_nn"])
def test_what_is_certified_is_below_what_attacks_leave(tiles, capsys, detector) -> None:
    where = options(tiles, detector=detector)
    attacked = ["--curve", "0.05,0.4", "--steps", "5", "--checks", "none", "--output_dir", "attacked"]
    assert main(["attack", *where, *attacked]) == console.DONE
    capsys.readouterr()
    found = localised([*where, "--attack", "attacked", "--radii", "0,0.05,0.4"], capsys)
    rows = {(row["condition"], row["radius"]): row for row in found}
    assert len(rows) == 6
    for name in ("pixel_auroc", "pro", "image_auroc"):
        clean, exact = rows["clean", 0.0][name], rows["certified", 0.0][name]
        # intervals count a tie of one patch's pixels as lost; float32 may also order near ties otherwise
        assert clean - 0.01 <= exact <= clean + 1e-3
        for radius in (0.05, 0.4):
            assert rows["certified", radius][name] <= rows["attack", radius][name]
        assert rows["certified", 0.4][name] < rows["certified", 0.05][name] < exact + 1e-12
    assert rows["certified", 0.05]["pixel_auroc"] > 0.5
    far = ["localise", *where, "--radii", "30", "--resamples", "5"]
    assert main(far) == console.DONE
    assert capsys.readouterr().out.count("nothing certified") == 3


def test_maps_without_a_proof_are_not_certified(tiles, capsys) -> None:
    assert "pca and patch_nn have" in failed(options(tiles, "--radii", "0.1"), capsys)
