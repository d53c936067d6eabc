from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from certify import console
from certify.cli import main
from diffad import sources
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


@pytest.mark.parametrize("way", ["reference", "denoise", "input", "sure"])
def test_a_certificate_is_printed_and_recorded(way, trained, tmp_path, capsys) -> None:
    argv = ["--detector", str(trained), "--smoothing", way, "--sigma", "0.5", "--output_dir", "run", *FAST]
    assert main(argv) == console.DONE
    out, err = capsys.readouterr()
    assert f"diffusion ({'squared_l2' if way == 'sure' else 'l2'}), {way}" in out
    assert (
        "certified L2 radius of the decision at the threshold (0: wrong or not certified), of each image"
        in out
    )
    assert "of each image by itself, alpha = 0.001\n" in out
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


def test_help_is_on_stdout(capsys) -> None:
    assert main(["--help"]) == console.DONE
    captured = capsys.readouterr()
    assert "--alpha_per_image" in captured.out
    assert captured.err == ""


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
