"""What `certify` refuses: one line says what was given, what is allowed and what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from certify import console
from certify.cli import main
from diffad import sources

FAST = [
    "--limit",
    "3",
    "--n",
    "50",
    "--batch_size",
    "50",
    "--radii",
    "0.05,0.1",
    "--no_baselines",
    "--no_examples",
]


def failed(argv: list[str], capsys) -> str:
    """Run a command that fails: exit code 1, empty stdout, and one line on stderr behind the progress."""
    assert main(argv) == console.FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert errors == captured.err.splitlines()[-1:]
    return errors[0]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--detector", "pixel_n"], "neither the folder of a fitted detector nor one of pixel_mean"),
        (["--detector", "/nowhere/at/all"], "neither the folder of a fitted"),
        (["--detector", "diffusion"], "train_ddpm.py"),
        (["--detector", "pixel_nn", "--data", "digtis"], "allowed are textures:FAMILY, digits"),
        (["--detector", "pixel_nn", "--data", "folder:/nowhere"], "/nowhere"),
        (["--detector", "pixel_nn", "--data", "digits", "--normal_class", "x"], "x"),
        (["--detector", "pixel_nn", "--score", "l2"], "pixel_nn has one score"),
        (["--detector", "pixel_nn", "--inner_sigma", "0.1"], "--inner_sigma"),
        (["--detector", "pixel_nn", "--smoothing", "reference", "--sigma", "1"], "pair_lipschitz"),
        (["--detector", "pixel_nn", "--smoothing", "input"], "--sigma 0.25"),
        (["--purifier", "/nowhere", "--detector", "pixel_nn"], "neither the folder of a fitted"),
        (["--sigma", "-1"], "--sigma: got '-1'"),
        (["--sigma", "0"], "--sigma: got '0', need numbers above 0"),
        (["--sigma", "nan"], "--sigma: got 'nan'"),
        (["--sigma", "abc"], "--sigma: got 'abc', need numbers"),
        (["--sigma", "0.5,0.5"], "sigma: got 0.5 + 0.5, need different levels"),
        (["--sigma", "0.5,1", "--adaptive"], "give one --sigma, or leave --adaptive out"),
        (["--detector", "pixel_nn", "--sigma", "0.5,1"], "adds no noise to sum over"),
        (["--alpha", "1"], "alpha: got 1.0"),
        (["--alpha_per_image", "0.7"], "alpha_per_image: got 0.7"),
        (["--n", "0"], "n: got 0"),
        (["--batch_size", "64"], "multiple of 50"),
        (["--radii", "0.1,x"], "--radii: got '0.1,x'"),
        (["--radii", "-0.1"], "none below 0"),
        (["--radii", "1e999"], "--radii"),
        (["--device", "nowhere"], "device: 'nowhere'"),
        (["--config", "/nowhere.yaml"], "is not a file"),
    ],
)
def test_each_mistake_says_one_clear_thing(argv, message, capsys, monkeypatch) -> None:
    def train():
        raise AssertionError("trained a detector before it looked at the options")

    monkeypatch.setattr(sources, "built_in_detector", train)
    assert message in failed(argv, capsys)


def test_a_way_or_score_that_proves_nothing_is_refused(trained, capsys) -> None:
    base = ["--detector", str(trained), *FAST]
    assert "pair_lipschitz" in failed([*base, "--score", "paper", "--smoothing", "reference"], capsys)
    assert "'none' needs" in failed([*base, "--smoothing", "none"], capsys)
    assert "no noise of its own" in failed([*base, "--inner_sigma", "0.1"], capsys)
    assert "takes images (1, 8, 8)" in failed([*base, "--resolution", "16"], capsys)


def test_fewer_processes_than_promised_are_refused(capsys, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "no launcher started this" in failed(["--sigma", "0.25"], capsys)


@pytest.mark.parametrize(
    "argv", [["--sgima", "0.25"], ["--n", "abc"], ["--smoothing", "refrence"], ["extra"]]
)
def test_a_typo_exits_with_2_and_an_empty_stdout(argv, capsys) -> None:
    assert main(argv) == console.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--sigma" in captured.err or argv[-1] in captured.err


def picture_folder(root: Path, tests: dict[str, int], bad: str | None = None) -> Path:
    """train/ and test/CLASS/ of small grey pictures; `bad` names a test picture that holds a NaN."""
    rng = np.random.default_rng(0)
    for part, count in {
        "train/good": 60,
        **{f"test/{name}": number for name, number in tests.items()},
    }.items():
        (root / part).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(root / part / f"{i:03d}.png")
    if bad is not None:
        Image.fromarray(np.full((8, 8), np.nan, dtype=np.float32)).save(root / bad)
    return root


def test_a_test_set_of_normals_only_is_refused(tmp_path, capsys) -> None:
    root = picture_folder(tmp_path / "all_normal", {"good": 4})
    message = failed(["--detector", "pixel_nn", "--data", f"mvtec:{root}", "--resolution", "8"], capsys)
    assert "anomal" in message or "defect" in message


def test_a_picture_with_nan_is_refused_by_name(tmp_path, capsys) -> None:
    root = picture_folder(tmp_path / "nan", {"good": 4, "scratch": 4}, bad="test/scratch/bad.tiff")
    message = failed(["--detector", "pixel_nn", "--data", f"mvtec:{root}", "--resolution", "8"], capsys)
    assert "bad.tiff" in message


def test_another_option_in_the_same_folder_is_refused_by_name(trained, capsys) -> None:
    argv = ["--detector", str(trained), "--output_dir", "run", *FAST]
    assert main(argv) == console.DONE
    capsys.readouterr()
    assert "sigma was 0.5 and is now 0.25" in failed([*argv, "--sigma", "0.25"], capsys)
    assert "detector was" in failed([*argv, "--score", "root_max"], capsys)
    assert "seed was 0 and is now 1" in failed([*argv, "--seed", "1"], capsys)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--percentile", "0.8"], "percentile was 0.5 and is now 0.8"),
        (["--alpha", "0.01"], "alpha was 0.001 and is now 0.01"),
        (["--n", "250"], "and is now 250"),
        (["--quantile", "0.8"], "quantile was 0.9 and is now 0.8"),
        (["--confidence", "failures"], "confidence was 'union' and is now 'failures'"),
        (["--adaptive"], "adaptive was False and is now True"),
        (
            ["--joint"],
            "joint was False and is now True; radii was '0.05,0.1' and is now '0.1'",
        ),
    ],
)
def test_rows_of_two_certificates_never_stand_in_one_table(option, words, capsys, tmp_path) -> None:
    base = ["--detector", "pixel_mean", "--smoothing", "input", "--sigma", "0.25", "--resolution", "8"]
    base += ["--output_dir", str(tmp_path / "mixed"), "--no_baselines", "--no_examples", *FAST]
    assert main(base) == console.DONE
    before = (tmp_path / "mixed" / "images.parquet").read_bytes()
    capsys.readouterr()
    err = failed([*base, "--radii", "0.1", *option], capsys)
    assert words in err
    assert "use another --output_dir" in err
    assert (tmp_path / "mixed" / "images.parquet").read_bytes() == before
