from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from certify import console
from certify.cli import main
from diffad import sources
from diffad.commands.certify_options import CertifyConfig, plan_of
from diffad.config import parse_config
from diffad.results import read_run
from diffad.tables import NOTHING

ROOT = Path(__file__).parents[2]
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


def rows(folder: Path) -> list[dict]:
    """The rows without the name of the run, which counts its command's options."""
    return pq.read_table(folder / "images.parquet").drop_columns("run_id").to_pylist()


def failed(argv: list[str], capsys) -> str:
    """Run a command that fails: exit code 1, empty stdout, and one line on stderr behind the progress."""
    assert main(argv) == console.FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    errors = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert errors == captured.err.splitlines()[-1:]
    return errors[0]


@pytest.mark.parametrize("way", ["reference", "denoise", "input", "sure"])
def test_a_certificate_is_printed_and_recorded(way, trained, tmp_path, capsys) -> None:
    argv = ["--detector", str(trained), "--smoothing", way, "--sigma", "0.5", "--output_dir", "run", *FAST]
    assert main(argv) == console.DONE
    out, err = capsys.readouterr()
    assert f"diffusion ({'squared_l2' if way == 'sure' else 'l2'}), {way}" in out
    assert "certified L2 radius of the decision at the threshold" in out
    assert "Linf reading (r / sqrt(d), the largest Linf ball inside the L2 ball): 0.05 holds 0.00624" in out
    assert "3 normal + 3 anomalous" in out
    assert "run folder: run" in err
    run = read_run("run")
    (entry,) = run.manifest["commands"]
    assert entry["config"]["smoothing"] == way
    assert entry["world_size"] == 1
    assert {(c.condition, c.radius) for c in run.conditions} == {
        ("clean", 0.0), ("certified", 0.0), ("certified", 0.05), ("certified", 0.1)
    }  # fmt: skip
    assert NOTHING in out or "0." in out


def test_json_is_one_object_on_stdout_with_the_baselines(trained, capsys) -> None:
    fast = [word for word in FAST if word != "--no_baselines" and word != "--no_examples"]
    assert main(["--detector", str(trained), "--json", *fast]) == console.DONE
    content = json.loads(capsys.readouterr().out)
    assert sorted(content) == ["auroc", "certified_radius", "folder", "linf_reading"]
    assert content["linf_reading"] == {"0.05": pytest.approx(0.05 / 8), "0.1": pytest.approx(0.1 / 8)}
    names = {row["detector"] for row in content["auroc"]}
    assert names == {"diffusion", "pixel_mean", "pca", "pixel_nn", "patch_nn", "closed_form"}
    assert list(content["certified_radius"]) == ["normal", "anomalous"]
    assert content["folder"].startswith("runs/certify-diffusion-digits-8-8-l2-reference-0.5-3")
    assert (Path(content["folder"]) / "examples.npz").is_file()


def test_a_repeat_is_identical_and_draws_nothing(trained, tmp_path, capsys, monkeypatch) -> None:
    argv = ["--detector", str(trained), "--output_dir", "run", *FAST]
    assert main(argv) == console.DONE
    before, out = pq.read_table("run/images.parquet"), capsys.readouterr().out

    def refuse(*args):
        raise AssertionError("drew again")

    monkeypatch.setattr("certify.pool.DrawPool._score", refuse)
    assert main(argv) == console.DONE
    assert pq.read_table("run/images.parquet").equals(before)
    assert capsys.readouterr().out == out
    # radii are post-processing of the same draws, each a statement of its own
    assert main([*argv, "--radii", "0.07"]) == console.DONE


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


def test_a_score_without_noise_is_certified_without_noise(capsys) -> None:
    assert main(["--detector", "pixel_nn", "--resolution", "8", "--json", *FAST]) == console.DONE
    table = json.loads(capsys.readouterr().out)["auroc"]
    assert {row["smoothing"] for row in table} == {"none"}
    assert {row["alpha"] for row in table} == {None}


def test_infinite_bounds_are_warned_of_before_sampling(trained, capsys, monkeypatch) -> None:
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffad.commands.certify.certify_split", stop)
    argv = ["--detector", str(trained), "--sigma", "0.1", "--radii", "0,0.9", "--n", "100"]
    assert main(argv) == console.INTERRUPTED
    err = capsys.readouterr().err
    assert "every bound is infinite at L2 radius 0.9" in err
    assert "interrupted" in err
    assert main(["--detector", str(trained), "--sigma", "0.1", "--radii", "0.05"]) == console.INTERRUPTED
    assert "infinite" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--detector", "pixel_n"], "neither a folder nor one of pixel_mean"),
        (["--detector", "/nowhere/at/all"], "neither a folder"),
        (["--detector", "diffusion"], "train_ddpm.py"),
        (["--detector", "pixel_nn", "--data", "digtis"], "allowed are textures, digits"),
        (["--detector", "pixel_nn", "--data", "folder:/nowhere"], "/nowhere"),
        (["--detector", "pixel_nn", "--data", "digits", "--normal_class", "x"], "x"),
        (["--detector", "pixel_nn", "--score", "l2"], "pixel_nn has one score"),
        (["--detector", "pixel_nn", "--inner_sigma", "0.1"], "--inner_sigma"),
        (["--detector", "pixel_nn", "--smoothing", "reference", "--sigma", "1"], "pair_lipschitz"),
        (["--detector", "pixel_nn", "--smoothing", "input"], "--sigma 0.25"),
        (["--purifier", "/nowhere", "--detector", "pixel_nn"], "neither a folder"),
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


def test_help_is_on_stdout(capsys) -> None:
    assert main(["--help"]) == console.DONE
    captured = capsys.readouterr()
    assert "--alpha_per_image" in captured.out
    assert captured.err == ""


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


def test_sigma_alone_trains_the_built_in_detector_once(tmp_path, capsys, monkeypatch) -> None:
    from diffad.diffusion import train as module

    trained = []
    real = module.train

    def tiny(config):
        trained.append(config)
        small = {"resolution": 8, "block_out_channels": (8,), "norm_num_groups": 4, "max_train_steps": 3}
        fewer = {
            "lr_warmup_steps": 1,
            "select_sigmas": (0.25,),
            "patch_sizes": (3,),
            "select_images": 4,
            "draws": 2,
        }
        plain = {
            "space_to_depth": 1,
            "mixed_precision": "no",
            "checkpointing_steps": 2,
            "train_batch_size": 4,
        }
        return real(replace(config, **small, **fewer, **plain, autocast_scoring=False))

    monkeypatch.setattr(module, "train", tiny)
    monkeypatch.setattr(sources, "user_cache_path", lambda name: tmp_path / "cache" / name)
    for _ in range(2):
        assert main(["--sigma", "0.25", *FAST]) == console.DONE
    err = capsys.readouterr().err
    assert len(trained) == 1
    assert trained[0].output_dir == str(tmp_path / "cache" / "diffad" / "digits-8")
    assert "training the built-in digits detector" in err
    assert "using the built-in digits detector" in err
    assert "in short: diffusion, AUROC 0." in err
    assert not list(tmp_path.glob("runs/digits*"))


def test_an_interrupt_exits_with_130_and_a_rerun_ends_with_the_same(trained, start, tmp_path) -> None:
    argv = ["-m", "certify", "--detector", trained, "--no_baselines", "--no_examples", "--radii", "0.1"]
    argv += ["--n", "300", "--batch_size", "50", "--limit", "20", "--output_dir"]
    process = start(*argv, "broken")
    scores = tmp_path / "broken" / "draws" / "diffusion"

    def bytes_kept() -> int:
        return sum(log.stat().st_size for log in scores.glob("scores-*.bin"))

    deadline = time.monotonic() + 60
    while bytes_kept() < 6000:  # in the middle of the test images
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "interrupted: what was finished is kept" in err
    assert "Traceback" not in err
    kept = bytes_kept()
    assert 6000 <= kept < 40_000
    assert not (tmp_path / "broken" / "images.parquet").exists()
    words = [str(word) for word in argv[2:]]
    assert main([*words, "broken"]) == console.DONE
    assert main([*words, "whole"]) == console.DONE
    assert rows(tmp_path / "broken") == rows(tmp_path / "whole")


def test_an_opponent_is_fitted_on_the_noise_that_it_will_see(capsys) -> None:
    argv = ["--detector", "pixel_nn", "--resolution", "8", "--smoothing", "input", "--sigma", "0.25"]
    assert main([*argv, "--fit_sigma", "0.25", *FAST]) == console.DONE
    out, err = capsys.readouterr()
    assert "pixel_nn (fit_sigma=0.25), input" in out
    assert "run folder: runs/certify-pixel_nn-digits-8-8-fit_sigma=0.25-input-0.25-3" in err


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").glob("certify_*.yaml")), ids=lambda path: path.stem
)
def test_every_preset_is_read_and_opens_with_its_command(path) -> None:
    head = path.read_text(encoding="utf-8").splitlines()[:3]
    assert all(line.startswith("#") for line in head)
    assert f"certify --config configs/{path.name}" in head[1]
    assert "Time:" in head[2]
    assert "Expected:" in head[2]
    config = parse_config(
        CertifyConfig, ["--config", str(path), "--limit", "3"], prog="certify", description=""
    )
    assert (config.data, config.limit) == ("mnist", 3)
    plan = plan_of(config)
    assert plan.smoothing == "none"
    # the radii of the paper, as they stand and halved
    assert {k / 255 for k in (8, 16, 36, 72)} | {k / 510 for k in (8, 16, 36, 72)} == set(plan.radii)


def test_the_preset_runs_on_images_at_hand(capsys, tmp_path) -> None:
    argv = [
        "--config",
        str(ROOT / "configs" / "certify_ocsdf_mnist.yaml"),
        "--data",
        "digits",
        "--resolution",
        "8",
    ]
    assert main([*argv, "--limit", "5", "--no_examples", "--json"]) == console.DONE
    rows = json.loads(capsys.readouterr().out)["auroc"]
    assert {row["detector"] for row in rows} == {"pixel_nn", "patch_nn", "pca", "pixel_mean"}
    assert {row["smoothing"] for row in rows} == {"none"}
