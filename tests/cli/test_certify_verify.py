from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from certify import console
from certify.certificate import percentile_scores
from certify.cli import main
from certify.files import write_json
from certify.log import read_layout, read_records
from certify.store import ScoreStore
from diffad import load_detector
from diffad.results import read_run, summarize
from diffad.stored import stored_draws

FAST = ["--limit", "3", "--n", "100", "--batch_size", "50", "--radii", "0.1", "--no_examples"]


@pytest.fixture(scope="session")
def recorded(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny network with its network-free rows."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    argv = ["--detector", str(trained), "--output_dir", str(folder), *FAST]
    assert main(argv) == console.DONE
    return folder


@pytest.fixture
def run(recorded: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(recorded, tmp_path / "run"))


def checks(argv: list[str], capsys, code: int = console.DONE) -> dict[str, dict]:
    """The checks by name."""
    assert main(["verify", *argv, "--json"]) == code
    return {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}


def statuses(found: dict[str, dict]) -> dict[str, str]:
    return {name: check["status"] for name, check in found.items()}


def test_an_honest_run_holds_in_every_check(run, trained, capsys) -> None:
    assert main(["verify", str(run), "--detector", str(trained)]) == console.DONE
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert all(line.startswith("ok  ") for line in lines)
    for what in (
        "tables",
        "images of diffusion (l2), reference, σ = 0.5",
        "options of diffusion (l2), reference, σ = 0.5",
        "bounds of diffusion (l2), reference, σ = 0.5",
        "threshold of diffusion (l2), reference, σ = 0.5",
        "redraw of diffusion (l2), reference, σ = 0.5, test images",
        "redraw of diffusion (l2), reference, σ = 0.5, held-out normals",
        "redraw of closed_form, reference, σ = 0.5, test images",
        "images of pixel_nn",
        "bounds of pixel_nn",
        "threshold of pixel_nn",
        "bounds of pca",
        "bounds of patch_nn",
        "bounds of pixel_mean",
    ):
        assert sum(what in line for line in lines) == 1, what
    recomputed = ("redraw", "bounds of pixel_nn", "threshold of pixel_nn")
    assert all("equal bit for bit" in line for line in lines if any(what in line for what in recomputed))
    assert "checks hold (key " in err


def test_the_share_and_the_key_choose_what_is_redrawn(run, trained, capsys) -> None:
    base = [str(run), "--detector", str(trained), "--no_baselines"]
    found = checks([*base, "--share", "1", "--key", "7"], capsys)
    assert not any("pixel_nn" in name for name in found)
    (test,) = (check["detail"] for name, check in found.items() if name.endswith("test images"))
    assert test.startswith("12 of 12 chunks of 50 draws")
    found = checks([*base, "--key", "7"], capsys)
    (test,) = (check["detail"] for name, check in found.items() if name.endswith("test images"))
    assert test.startswith("1 of 12 chunks")


def rewrite_rows(run: Path, change) -> None:
    table = pq.read_table(run / "images.parquet")
    columns = {name: table[name].to_pylist() for name in table.schema.names}
    change(columns)
    pq.write_table(pa.table(columns, schema=table.schema), run / "images.parquet")


def test_a_changed_bound_fails_with_image_and_both_values(run, trained, capsys) -> None:
    def better(columns) -> None:
        at = next(
            i
            for i, (d, c, r) in enumerate(
                zip(columns["detector"], columns["condition"], columns["radius"], strict=True)
            )
            if (d, c, r) == ("diffusion", "certified", 0.1)
        )
        columns["lower"][at] += 1e-9

    rewrite_rows(run, better)
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    bounds = found["bounds of diffusion (l2), reference, σ = 0.5"]
    assert bounds["status"] == "failed"
    assert "lower end stored" in bounds["detail"]
    assert "digits/8/" in bounds["detail"]


def test_changed_rows_no_longer_give_the_tables(run, capsys) -> None:
    rewrite_rows(run, lambda columns: columns.update(label=columns["label"][::-1]))
    assert main(["verify", str(run), "--tables_only"]) == console.FAILED
    out, err = capsys.readouterr()
    assert out.startswith("failed  tables  summary.json: ")
    assert "stored" in out
    assert "1 of 1 checks failed" in err


def test_changed_tables_fail_and_name_the_first_difference(run, capsys) -> None:
    summary = json.loads((run / "summary.json").read_text())
    summary["auroc"][2]["auroc"] = 0.125
    (run / "summary.json").write_text(json.dumps(summary))
    detail = checks([str(run), "--tables_only"], capsys, console.FAILED)["tables"]["detail"]
    assert detail.startswith("summary.json: auroc[2].auroc: stored 0.125, derived ")
    (run / "summary.json").unlink()
    assert "missing" in checks([str(run), "--tables_only"], capsys, console.FAILED)["tables"]["detail"]


def retell(run: Path) -> None:
    """Write the tables that changed rows give, as somebody would who forges with care."""
    write_json(run / "summary.json", summarize(read_run(run)))


def failed(found: dict[str, dict]) -> list[str]:
    return [name for name, status in statuses(found).items() if status == "failed"]


def test_a_relabelled_image_fails_though_tables_and_bounds_agree(run, trained, capsys) -> None:
    def relabel(columns) -> None:
        hard = next(name for name, label in zip(columns["image_id"], columns["label"], strict=True) if label)
        for at, name in enumerate(columns["image_id"]):
            if name == hard:
                columns["label"][at] = 0

    rewrite_rows(run, relabel)
    retell(run)
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    images = "images of diffusion (l2), reference, σ = 0.5"
    assert failed(found) == [images]
    assert "stored 0, the data says 1" in found[images]["detail"]


def test_a_dropped_image_and_a_moved_threshold_fail_without_noise(tmp_path, capsys) -> None:
    argv = ["--detector", "pixel_nn", "--resolution", "8", "--output_dir", "plain", "--no_baselines", *FAST]
    assert main(argv) == console.DONE
    capsys.readouterr()
    whole = Path(shutil.copytree("plain", "whole"))

    def drop(columns) -> None:
        keep = [at for at, index in enumerate(columns["image_index"]) if index != 4]
        columns.update({name: [column[at] for at in keep] for name, column in columns.items()})

    rewrite_rows(Path("plain"), drop)
    retell(Path("plain"))
    found = checks(["plain"], capsys, console.FAILED)
    assert failed(found) == ["images of pixel_nn"]
    assert "has rows of 5 images, the test set has 6" in found["images of pixel_nn"]["detail"]

    rewrite_rows(whole, lambda columns: columns.update(threshold=[t + 0.1 for t in columns["threshold"]]))
    retell(whole)
    assert failed(checks([str(whole)], capsys, console.FAILED)) == ["threshold of pixel_nn"]


def test_fewer_held_out_normals_than_the_options_say_fail(run, trained, capsys) -> None:
    """Who may leave out the normals with the highest scores chooses the threshold."""
    folder = run / "draws" / "diffusion" / "calibrate"
    old = ScoreStore(folder, json.loads((folder / "config.json").read_text())["config"])
    kept = {index: (digest, old.chunks(index, digest)) for index, digest in old.digests().items()}
    score = {index: percentile_scores(stored_draws(old, [index], 100))[0] for index in kept}
    lowest = sorted(kept, key=lambda index: score[index])[:12]
    for log in folder.glob("scores-*.bin"):
        log.unlink()
    new = ScoreStore(folder, old.config)
    for index in lowest:
        new.put(index, *kept[index])

    def lower(columns) -> None:
        """Write the largest of 12, which is the rank that 0.9 gives."""
        for at, detector in enumerate(columns["detector"]):
            if detector == "diffusion":
                columns["threshold"][at] = score[lowest[-1]]

    rewrite_rows(run, lower)
    retell(run)
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    threshold = "threshold of diffusion (l2), reference, σ = 0.5"
    assert failed(found) == [threshold]
    assert "the draws are of 12 held-out normals, need the first 17" in found[threshold]["detail"]


def test_absent_data_leaves_images_and_thresholds_unchecked(run, trained, capsys) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["data"]["options"]["spec"] = "mvtec:gone"
    write_json(run / "manifest.json", manifest)
    retell(run)
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    for what in ("images", "threshold"):
        check = found[f"{what} of diffusion (l2), reference, σ = 0.5"]
        assert check["status"] == "not checked"
        assert "name it by --data" in check["detail"]


def test_a_reference_run_with_a_purifier_holds(trained, tmp_path, capsys) -> None:
    other = Path(shutil.copytree(trained, tmp_path / "other"))
    detector = load_detector(other)
    with torch.no_grad():
        for weights in detector.purifier.denoiser.unet.parameters():
            weights.mul_(0.9)
    detector.save_pretrained(other)
    argv = ["--detector", str(trained), "--purifier", str(other), "--output_dir", "purified", *FAST]
    assert main(argv) == console.DONE
    capsys.readouterr()
    base = ["purified", "--detector", str(trained)]
    found = checks([*base, "--purifier", str(other)], capsys)
    assert set(statuses(found).values()) == {"ok"}
    assert "redraw of closed_form, reference, σ = 0.5, test images" in found  # which no purifier serves

    found = checks([*base, "--purifier", str(trained), "--no_baselines"], capsys, console.FAILED)
    assert "redraw of diffusion (l2), reference, σ = 0.5, test images" in failed(found)
    options = found["options of diffusion (l2), reference, σ = 0.5"]
    assert options["status"] == "failed"
    assert ", the one at hand is '" in options["detail"]

    other.rename(tmp_path / "gone")
    found = checks([*base, "--no_baselines"], capsys, console.FAILED)
    redraw = found["redraw of diffusion (l2), reference, σ = 0.5"]
    assert redraw["status"] == "not checked"
    assert "name it by --purifier" in redraw["detail"]


def test_a_purifier_that_the_run_did_not_have_is_refused(run, trained, capsys) -> None:
    argv = ["verify", str(run), "--detector", str(trained), "--purifier", str(trained)]
    assert main(argv) == console.FAILED
    assert "--purifier: the run was certified without one" in capsys.readouterr().err


def forge(run: Path, place: int, row: int, value: float) -> None:
    """Change one stored score as somebody would who knows the format, checksum included."""
    import zlib

    (log,) = (run / "draws" / "diffusion").glob("scores-*.bin")
    stored = json.loads((run / "draws" / "diffusion" / "config.json").read_text())
    layout = read_layout(log, stored["hash"])
    assert layout is not None
    content = bytearray(log.read_bytes())
    kind = layout.record
    start = len(content) % kind.itemsize + row * kind.itemsize
    record = np.frombuffer(bytes(content[start : start + kind.itemsize]), kind).copy()
    record["scores"][0, place] = value
    record["crc"] = zlib.crc32(record.tobytes()[:-4])
    content[start : start + kind.itemsize] = record.tobytes()
    log.write_bytes(content)
    assert read_records(log, layout, 0)[1] == 0


def test_a_forged_score_is_found_by_drawing_it_again(run, trained, capsys) -> None:
    forge(run, place=3, row=0, value=0.25)
    base = [str(run), "--detector", str(trained), "--no_baselines"]
    found = checks([*base, "--share", "1"], capsys, console.FAILED)
    redraw = found["redraw of diffusion (l2), reference, σ = 0.5, test images"]
    assert redraw["status"] == "failed"
    assert "draw 3: stored 0.25, redrawn" in redraw["detail"]


def test_a_run_forged_throughout_is_found_as_well(run, trained, capsys) -> None:
    """Stored scores, rows and tables agree with each other; only the noise tells."""
    folder = run / "draws" / "diffusion"
    config = json.loads((folder / "config.json").read_text())["config"]
    old = ScoreStore(folder, config)
    kept = {index: (digest, old.chunks(index, digest)) for index, digest in old.digests().items()}
    for log in folder.glob("scores-*.bin"):
        log.unlink()
    new = ScoreStore(folder, config)
    for index, (digest, chunks) in kept.items():
        new.put(index, digest, {chunk: scores + np.float32(index >= 3) for chunk, scores in chunks.items()})
    argv = ["--detector", str(trained), "--output_dir", str(run), *FAST]
    assert main(argv) == console.DONE  # reads the forged draws, and writes rows and tables from them
    capsys.readouterr()
    found = checks(
        [str(run), "--detector", str(trained), "--no_baselines", "--share", "1"], capsys, console.FAILED
    )
    wrong = [name for name, check in found.items() if check["status"] == "failed"]
    assert wrong == ["redraw of diffusion (l2), reference, σ = 0.5, test images"]


def test_a_forged_threshold_fails(run, trained, capsys) -> None:
    rewrite_rows(
        run, lambda columns: columns.update(threshold=[value and value + 1 for value in columns["threshold"]])
    )
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    assert found["threshold of diffusion (l2), reference, σ = 0.5"]["status"] == "failed"


def test_a_more_lenient_level_fails(run, trained, capsys) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["commands"][0]["config"]["alpha"] = 0.0001  # claimed, not kept
    (run / "manifest.json").write_text(json.dumps(manifest))
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    options = found["options of diffusion (l2), reference, σ = 0.5"]
    assert options["status"] == "failed"
    assert "alpha" in options["detail"]


def test_without_draws_or_detector_it_says_what_was_not_checked(run, trained, capsys) -> None:
    shutil.rmtree(run / "draws")
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    assert statuses(found) == {
        "tables": "ok",
        "images of diffusion (l2), reference, σ = 0.5": "ok",
        "options of diffusion (l2), reference, σ = 0.5": "not checked",
        "bounds of diffusion (l2), reference, σ = 0.5": "not checked",
        "redraw of diffusion (l2), reference, σ = 0.5": "not checked",
    }
    assert checks([str(run), "--tables_only"], capsys)["tables"]["status"] == "ok"


def test_a_detector_that_is_gone_leaves_only_its_redraw(run, trained, capsys) -> None:
    # the manifest keeps the last name of the folder only, and here there is none of that name
    found = checks([str(run), "--no_baselines"], capsys, console.FAILED)
    assert found["redraw of diffusion (l2), reference, σ = 0.5"]["status"] == "not checked"
    assert "name it by --detector" in found["redraw of diffusion (l2), reference, σ = 0.5"]["detail"]
    for what in ("images", "options", "bounds", "threshold"):
        assert found[f"{what} of diffusion (l2), reference, σ = 0.5"]["status"] == "ok"


def test_a_smaller_constant_than_the_detector_declares_fails(run, trained, capsys) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["commands"][0]["config"]["lipschitz"] == {"diffusion": 1.0}
    manifest["commands"][0]["config"]["lipschitz"] = {"diffusion": 0.5}
    (run / "manifest.json").write_text(json.dumps(manifest))
    found = checks([str(run), "--detector", str(trained), "--no_baselines"], capsys, console.FAILED)
    options = found["options of diffusion (l2), reference, σ = 0.5"]
    assert options["detail"] == "the run says L = 0.5, the detector declares 1"


def test_another_detector_is_refused(run, trained, tmp_path, capsys) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    detector = load_detector(other)
    detector.noise_ = detector.noise_ + 1.0
    detector.save_pretrained(other)
    for named, message in [
        (str(other), "is another diffusion than the one certified"),
        ("pca", "is another pca"),
    ]:
        assert main(["verify", str(run), "--detector", named]) == console.FAILED
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in captured.err.splitlines()[-1]


def test_other_data_is_refused(run, trained, capsys) -> None:
    assert main(["verify", str(run), "--detector", str(trained), "--data", "textures:grid"]) == console.FAILED
    assert "error: " in capsys.readouterr().err


def test_a_run_without_noise_is_computed_again(tmp_path, capsys) -> None:
    argv = ["--detector", "pixel_nn", "--resolution", "8", "--output_dir", "plain", "--no_baselines", *FAST]
    assert main(argv) == console.DONE
    capsys.readouterr()
    found = checks(["plain"], capsys)
    assert statuses(found) == {
        "tables": "ok",
        "images of pixel_nn": "ok",
        "bounds of pixel_nn": "ok",
        "threshold of pixel_nn": "ok",
    }

    def wider(columns) -> None:
        kinds = zip(columns["upper"], columns["condition"], strict=True)
        columns["upper"] = [value + 1e-3 * (kind == "certified") for value, kind in kinds]

    rewrite_rows(Path("plain"), wider)
    assert statuses(checks(["plain"], capsys, console.FAILED))["bounds of pixel_nn"] == "failed"


def test_plain_smoothing_needs_no_detector_for_its_bounds(tmp_path, capsys) -> None:
    argv = ["--detector", "pixel_nn", "--resolution", "8", "--smoothing", "input", "--sigma", "0.25"]
    assert main([*argv, "--output_dir", "noisy", "--no_baselines", *FAST]) == console.DONE
    capsys.readouterr()
    found = checks(["noisy", "--share", "0.5"], capsys)
    assert set(statuses(found).values()) == {"ok"}
    assert "12 of 12" not in found["redraw of pixel_nn, input, σ = 0.25, test images"]["detail"]


@pytest.mark.parametrize(
    "extra", [["--adaptive", "--n", "400"], ["--images_per_batch", "2", "--batch_size", "100"]]
)
def test_other_ways_to_draw_hold_as_well(extra, trained, capsys) -> None:
    argv = ["--detector", str(trained), "--output_dir", "other", "--no_baselines", *FAST, *extra]
    assert main([*argv, "--radii", "0.05,0.1", "--joint"]) == console.DONE
    capsys.readouterr()
    found = checks(["other", "--detector", str(trained), "--share", "1"], capsys)
    assert set(statuses(found).values()) == {"ok"}
    redraw = found["redraw of diffusion (l2), reference, σ = 0.5, test images"]
    assert "equal bit for bit" in redraw["detail"]
    rewrite_rows(
        Path("other"),
        lambda columns: columns.update(
            upper=[
                v + 1e-9 * (k == "certified")
                for v, k in zip(columns["upper"], columns["condition"], strict=True)
            ]
        ),
    )
    found = checks(["other", "--detector", str(trained)], capsys, console.FAILED)
    assert found["bounds of diffusion (l2), reference, σ = 0.5"]["status"] == "failed"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["/nowhere"], "no manifest.json here"),
        (["run", "--share", "0"], "--share: got 0.0"),
        (["run", "--share", "1.5"], "--share: got 1.5"),
        (["run", "--device", "nowhere"], "device: 'nowhere'"),
        (["run", "--detector", "/nowhere"], "neither a folder nor one of"),
    ],
)
def test_each_mistake_says_one_clear_thing(argv, message, run, capsys) -> None:
    assert main(["verify", *argv]) == console.FAILED
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err.splitlines()[-1]


def test_usage(capsys) -> None:
    assert main(["verify", "--help"]) == console.DONE
    assert "usage: certify verify" in capsys.readouterr().out
    for argv in (["verify"], ["verify", "run", "--rubbish", "1"]):
        assert main(argv) == console.USAGE
        assert capsys.readouterr().out == ""


def test_the_summary_that_is_compared_is_the_one_that_is_written(run) -> None:
    written = json.loads((run / "summary.json").read_text())
    assert written == json.loads(json.dumps(summarize(read_run(run))))
