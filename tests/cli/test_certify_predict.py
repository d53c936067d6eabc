from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from certify import console
from certify.cli import main
from diffad.results import read_run

NN = ["--detector", "pixel_nn", "--resolution", "8"]
NOISY = [*NN, "--smoothing", "input", "--sigma", "0.25", "--n", "200", "--batch_size", "50"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Two eights and two threes of several sizes and kinds, unlabelled but for their names."""
    digits = load_digits()
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, index, size, mode in [
        ("d_three.png", 3, (8, 8), "RGB"),
        ("a_eight.png", 8, (8, 8), "L"),
        ("c_three.bmp", 13, (24, 24), "L"),
        ("b_eight.jpg", 18, (40, 32), "L"),
    ]:
        grey = Image.fromarray((digits.images[index] * 255 / 16).astype(np.uint8))
        grey.resize(size, Image.Resampling.NEAREST).convert(mode).save(folder / name)
    return folder


def spoil(folder: Path) -> None:
    """Add a damaged file, and one that holds a NaN."""
    (folder / "c_bad.png").write_bytes(b"\x89PNG no more")
    Image.fromarray(np.full((8, 8), np.nan, dtype=np.float32)).save(folder / "e_nan.tiff")


def predicted(argv: list[str], capsys, code: int = console.DONE) -> dict:
    assert main(["predict", *argv, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def failed(argv: list[str], capsys) -> str:
    assert main(["predict", *argv]) == console.FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


def test_images_are_decided_in_order_with_radius_and_price(pictures, capsys) -> None:
    found = predicted([str(pictures), *NOISY, "--seed", "0"], capsys)
    assert (found["detector"], found["smoothing"], found["sigma"]) == ("pixel_nn", "input", 0.25)
    images = found["images"]
    assert [image["image"] for image in images] == [
        "a_eight.png",
        "b_eight.jpg",
        "c_three.bmp",
        "d_three.png",
    ]
    assert images[0]["decision"] == "normal"
    assert images[0]["radius"] > 0.1
    assert images[0]["linf"] == pytest.approx(images[0]["radius"] / 8)
    assert {image["passes"] for image in images} == {300}  # 100 to guess, 200 to certify
    assert all(image["seconds"] > 0 for image in images)
    assert found["unreadable"] == {}


def test_the_threshold_is_that_of_certify(pictures, tmp_path, capsys) -> None:
    found = predicted([str(pictures), *NOISY], capsys)
    fast = ["--limit", "3", "--no_baselines", "--no_examples", "--output_dir", "run", "--radii", "0.1"]
    assert main([*NOISY, *fast]) == console.DONE
    run = read_run("run")
    assert found["threshold"] == run.threshold(run.main[0])


def test_noise_is_fresh_unless_a_seed_is_given_and_then_it_is_warned_of(pictures, capsys) -> None:
    def scores(*more: str) -> list[float]:
        return [image["score"] for image in predicted([str(pictures), *NOISY, *more], capsys)["images"]]

    assert scores() != scores()
    assert scores("--seed", "5") == scores("--seed", "5")
    assert main(["predict", str(pictures), *NOISY, "--seed", "5"]) == console.DONE
    assert "voids its certificate" in capsys.readouterr().err


def test_one_file_in_the_table_says_what_it_rests_on(pictures, capsys) -> None:
    argv = ["predict", str(pictures / "a_eight.png"), *NOISY, "--n", "1000"]
    assert main(argv) == console.DONE
    out, err = capsys.readouterr()
    assert out.splitlines()[0].split() == [
        "image", "decision", "L2", "radius", "Linf", "reading", "score", "passes", "seconds"
    ]  # fmt: skip
    assert out.splitlines()[1].startswith(
        "a_eight.png    normal"
    )  # its distance to the threshold is 1.3 sigma
    assert "1 normal, 0 anomalous, 0 abstain; threshold" in out
    assert "quantile 0.9 of 17 held-out normals of digits:8" in out
    assert "wrong with probability at most 0.001" in out
    assert "8 x 8" in out
    assert "warning" not in err


def test_a_radius_is_decided_with_few_draws(pictures, capsys) -> None:
    argv = [str(pictures), *NOISY, "--radius", "16/255", "--max_samples", "2000", "--seed", "0"]
    found = predicted(argv, capsys)
    first = found["images"][0]
    assert (first["decision"], first["radius"]) == ("normal", 16 / 255)
    assert first["draws"] < 200
    assert {image["radius"] for image in found["images"]} <= {0.0, 16 / 255}


def test_without_noise_nothing_is_random(pictures, capsys) -> None:
    first, second = (predicted([str(pictures), *NN], capsys) for _ in range(2))
    assert first["alpha"] is None
    keys = ("decision", "radius", "score", "passes")
    assert [[i[k] for k in keys] for i in first["images"]] == [[i[k] for k in keys] for i in second["images"]]
    assert {image["passes"] for image in first["images"]} == {1}


def test_a_damaged_image_is_named_and_the_others_are_kept(pictures, capsys) -> None:
    spoil(pictures)
    assert (
        main(["predict", str(pictures), *NOISY, "--format", "csv", "--output_dir", "out"]) == console.FAILED
    )
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["image"] for row in rows] == [
        "a_eight.png", "b_eight.jpg", "c_bad.png", "c_three.bmp", "d_three.png", "e_nan.tiff"
    ]  # fmt: skip
    assert {row["decision"] for row in rows if not row["error"]} <= {"normal", "anomalous", "abstain"}
    for row in (rows[2], rows[5]):
        assert (row["decision"], row["radius"]) == ("unreadable", "")
        assert row["image"] in row["error"]
    assert err.splitlines()[-1] == "error: 2 of 6 images could not be read: c_bad.png, e_nan.tiff"
    assert "Traceback" not in err
    assert Path("out/predictions.csv").read_text() == out
    (entry,) = json.loads(Path("out/manifest.json").read_text())["commands"]
    assert entry["command"] == "certify predict"
    assert entry["config"]["calibration"]["images"] == 17
    found = predicted([str(pictures), *NOISY], capsys, console.FAILED)
    assert sorted(found["unreadable"]) == ["c_bad.png", "e_nan.tiff"]
    assert len(found["images"]) == 4


def test_images_that_cannot_be_read_are_refused_before_a_threshold_is_made(
    pictures, tmp_path, capsys
) -> None:
    spoil(pictures)
    for image in ("c_bad.png", "e_nan.tiff"):
        assert main(["predict", str(pictures / image), *NOISY]) == console.FAILED
        (line,) = capsys.readouterr().err.splitlines()
        assert image in line
    for path in pictures.iterdir():
        if path.name not in ("c_bad.png", "e_nan.tiff"):
            path.unlink()
    assert "c_bad.png" in (message := failed([str(pictures), *NOISY], capsys))
    assert "and 1 more that cannot be read" in message


def test_a_given_threshold_needs_no_data(trained, pictures, tmp_path, capsys) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(trained, alone)
    manifest = json.loads((alone / "manifest.json").read_text())
    manifest["data"]["options"]["spec"] = "folder:gone"
    (alone / "manifest.json").write_text(json.dumps(manifest))
    base = [str(pictures), "--detector", str(alone), "--n", "50", "--batch_size", "50"]
    assert "--data and its options" in failed(base, capsys)
    found = predicted([*base, "--threshold", "0.0"], capsys)
    assert {image["decision"] for image in found["images"]} == {"anomalous"}  # an L2 error is above 0
    assert found["smoothing"] == "reference"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["/nowhere"], "/nowhere: no such folder"),
        (["empty"], "holds no image"),
        (["stray"], "stray: holds no image; allowed are .png"),
        (["pictures", "--detector", "pixel_n"], "neither the folder of a fitted detector nor one of"),
        (["pictures", *NN, "--smoothing", "input"], "--sigma 0.25"),
        (["pictures", *NN, "--smoothing", "reference", "--sigma", "1"], "pair_lipschitz"),
        (["pictures", *NN, "--radius", "0"], "--radius: got '0', need one radius above 0"),
        (["pictures", *NN, "--radius", "0.1,0.2"], "need one radius"),
        (["pictures", *NN, "--radius", "x"], "8/255"),
        (["pictures", *NN, "--threshold", "nan"], "--threshold: got nan"),
        (["pictures", *NN, "--quantile", "0.99"], "need at least 99"),
        (["pictures", *NN, "--alpha", "0.5"], "alpha: got 0.5"),
        (["pictures", *NN, "--n", "0"], "n: got 0"),
        (
            ["pictures", *NOISY, "--radius", "1", "--max_samples", "100"],
            "max_samples: got 100, need at least",
        ),
        (["pictures", *NN, "--batch_size", "64"], "multiple of 50"),
        (["pictures", *NN, "--device", "nowhere"], "device: 'nowhere'"),
        (["pictures", *NN, "--seed", "-1"], "seed: got -1"),
    ],
)
def test_each_mistake_says_one_clear_thing(argv, message, pictures, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "stray").mkdir()
    (tmp_path / "stray" / "notes.txt").write_text("no image")
    assert message in failed(argv, capsys)


def test_what_is_no_image_is_skipped_and_counted(pictures, capsys) -> None:
    (pictures / "notes.txt").write_text("no image")
    (pictures / "more").mkdir()
    assert main(["predict", str(pictures), *NN, "--format", "csv"]) == console.DONE
    out, err = capsys.readouterr()
    assert len(list(csv.DictReader(io.StringIO(out)))) == 4
    assert err.splitlines()[0] == "skipped 2 of 6 entries that are no image: more, notes.txt"


def test_a_detector_of_another_size_than_its_data_is_refused(trained, pictures, capsys) -> None:
    message = failed([str(pictures), "--detector", str(trained), "--resolution", "16"], capsys)
    assert "takes images (1, 8, 8)" in message


def test_a_certificate_is_not_written_over(pictures, capsys) -> None:
    fast = ["--limit", "2", "--no_baselines", "--no_examples", "--output_dir", "run"]
    assert main([*NN, *fast]) == console.DONE
    capsys.readouterr()
    assert "holds a run" in failed([str(pictures), *NN, "--output_dir", "run"], capsys)


def test_usage(pictures, capsys, monkeypatch) -> None:
    assert main(["predict", "--help"]) == console.DONE
    captured = capsys.readouterr()
    assert "usage: certify predict" in captured.out
    assert "--max_samples" in captured.out
    assert captured.err == ""
    for argv in (["predict"], ["predict", str(pictures), "--rubbish", "1"]):
        assert main(argv) == console.USAGE
        assert capsys.readouterr().out == ""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["predict", str(pictures), *NN]) == console.FAILED
    assert "2 processes" in capsys.readouterr().err
