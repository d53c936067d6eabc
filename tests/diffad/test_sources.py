from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from certify.checks import InputError
from diffad import sources
from diffad.baselines.closed_form import ClosedForm
from diffad.baselines.pixel_nn import PixelNN
from diffad.cli import main
from diffad.commands.certify_options import CertifyConfig
from diffad.data import load_data
from diffad.diffusion.detector import DiffusionDetector
from diffad.diffusion.model import Denoiser
from diffad.manifest import describe_data
from diffad.plan import score_name_of
from diffad.sources import SourceOptions, at_sigma, config_path, default_class, load_sources, parse_radii


@pytest.fixture(scope="module")
def split():
    return load_data("digits", normal_class="3", resolution=16, seed=5)


@pytest.fixture
def trained(split, tmp_path: Path) -> Path:
    """A detector with the manifest of a training on class 3, seed 5, at 16 x 16."""
    PixelNN().fit(split.train.images).save_pretrained(tmp_path / "nn")
    manifest = {"data": describe_data(split)}
    (tmp_path / "nn" / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path / "nn"


def test_a_detector_is_tested_on_the_split_that_it_was_trained_on(trained, split) -> None:
    detector, loaded = load_sources(SourceOptions(detector=str(trained)))
    assert detector.image_shape == (1, 16, 16)
    assert loaded.fingerprint() == split.fingerprint()
    _, few = load_sources(SourceOptions(detector=str(trained), limit=2))
    assert (few.name, len(few.test)) == ("digits:3", 4)
    assert few.train.fingerprint() == split.train.fingerprint()


@pytest.mark.parametrize("what", ["nn", "pixel_nn"])
def test_behind_a_purifier_too(trained, split, what: str, tmp_path: Path) -> None:
    """The detector behind, and where that is fitted here the diffusion model, says on what data."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = Denoiser.build(
            (1, 16, 16), block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1
        )
    DiffusionDetector.from_denoiser(denoiser, (1, 16, 16)).fit(split.train.images).save_pretrained(
        tmp_path / "diffusion"
    )
    (tmp_path / "diffusion" / "manifest.json").write_text((trained / "manifest.json").read_text())
    behind = str(trained) if what == "nn" else what
    name = f"purified:{behind},diffusion={tmp_path / 'diffusion'},draws=1"
    _, loaded = load_sources(SourceOptions(detector=name))
    assert loaded.fingerprint() == split.fingerprint()
    assert main(["fit", "--detector", name, "--output_dir", str(tmp_path / "fitted")]) == 0
    _, loaded = load_sources(SourceOptions(detector=str(tmp_path / "fitted")))
    assert loaded.fingerprint() == split.fingerprint()


def test_options_go_before_what_the_training_says(trained) -> None:
    _, other = load_sources(SourceOptions(detector=str(trained), normal_class="4", data_seed=6))
    assert (other.name, other.options["seed"], other.resolution) == ("digits:4", 6, 16)


def test_test_images_that_the_detector_keeps_are_named_and_recorded(trained, split, capsys) -> None:
    """Under another seed some images that were learnt from are tested on."""
    _, other = load_sources(SourceOptions(detector=str(trained), data_seed=6))
    learnt = set(split.train.image_hashes())
    shared = [
        name
        for name, digest in zip(other.test.identifiers, other.test.image_hashes(), strict=True)
        if digest in learnt
    ]
    assert len(shared) > 5
    said = capsys.readouterr().err
    assert (
        f"warning: {len(shared)} of {len(other.test)} test images are among the normals that pixel_nn" in said
    )
    assert f"({', '.join(shared[:5])}, ...)" in said
    assert describe_data(other)["probe"]["test_images_in_bank"] == len(shared)
    assert describe_data(other)["probe"]["near_duplicate_auroc"] == other.probe["near_duplicate_auroc"]


def test_the_split_of_the_training_is_not_asked_again(trained, capsys, monkeypatch) -> None:
    monkeypatch.setattr(PixelNN, "in_bank", lambda *_: pytest.fail("asked"))
    load_sources(SourceOptions(detector=str(trained)))
    load_sources(SourceOptions(detector="pixel_nn", normal_class="3", data_seed=5))
    monkeypatch.setattr(PixelNN, "in_bank", lambda *_: [])
    _, same = load_sources(SourceOptions(detector=str(trained), data="digits"))
    assert "warning" not in capsys.readouterr().err
    assert "test_images_in_bank" not in same.probe


def test_another_data_set_takes_nothing_of_the_training_but_the_size(trained) -> None:
    _, textures = load_sources(SourceOptions(detector=str(trained), data="textures:grid", limit=2))
    assert (textures.name, textures.resolution, textures.channels) == ("textures:grid", 16, 1)
    assert textures.options["seed"] == 0


def test_a_name_is_fitted_on_the_train_part(split) -> None:
    options = SourceOptions(detector="pixel_nn", normal_class="3", resolution=16, data_seed=5)
    detector, loaded = load_sources(options)
    assert loaded.fingerprint() == split.fingerprint()
    assert detector.fingerprint() == PixelNN().fit(split.train.images).fingerprint()
    _, default = load_sources(SourceOptions(detector="pixel_mean"))
    assert (default.name, default.resolution) == ("digits:8", 16)
    assert default_class("digits", None) == "8"
    assert default_class("digits", "2") == "2"
    assert default_class("mnist", None) is None


def test_a_name_is_fitted_on_noise_where_asked(split, trained) -> None:
    options = SourceOptions(detector="pixel_nn", normal_class="3", data_seed=5, fit_sigma=0.25, fit_copies=2)
    detector, _ = load_sources(options)
    expected = PixelNN().fit(split.train.images, noise_sigma=0.25, noise_copies=2)
    assert detector.fingerprint() == expected.fingerprint()
    assert score_name_of(detector, "input") == "fit_sigma=0.25"
    with pytest.raises(InputError, match=r"--fit_sigma: .* is fitted already"):
        load_sources(SourceOptions(detector=str(trained), fit_sigma=0.25))


def test_images_of_another_size_are_refused(trained) -> None:
    with pytest.raises(InputError, match=r"takes images \(1, 16, 16\), digits:3 has \(1, 8, 8\)"):
        load_sources(SourceOptions(detector=str(trained), resolution=8))


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"data": null}'])
def test_a_damaged_manifest_is_named(content: str, trained) -> None:
    (trained / "manifest.json").write_text(content)
    with pytest.raises(InputError, match=r"manifest\.json: is no manifest of a training"):
        load_sources(SourceOptions(detector=str(trained)))


def test_options_that_a_detector_does_not_have_are_refused(split) -> None:
    nn, closed_form = PixelNN().fit(split.train.images), ClosedForm().fit(split.train.images)
    with pytest.raises(InputError, match="one score"):
        sources.with_score_options(nn, SourceOptions(score="l2"))
    assert sources.with_score_options(nn, SourceOptions()) is nn
    with pytest.raises(InputError, match="'sure' has a score of its own"):
        sources.with_score_options(closed_form, CertifyConfig(score="l2", smoothing="sure"))
    for way in ("none", "reference", "input", "denoise", "sure", ""):
        assert at_sigma(closed_form, way, 0.5, None) is closed_form
        with pytest.raises(InputError, match="--inner_sigma"):
            at_sigma(closed_form, way, 0.5, 0.1)


@pytest.mark.parametrize(
    ("text", "radii"),
    [("0,0.1", (0.0, 0.1)), ("8/255", (8 / 255,)), (" 1 , 2,", (1.0, 2.0)), ("1e-3", (0.001,))],
)
def test_radii_are_numbers_or_fractions(text: str, radii: tuple[float, ...]) -> None:
    assert parse_radii(text) == radii


@pytest.mark.parametrize("text", ["", ",", "x", "-0.1", "1/0", "nan", "inf", "1e999", "0.1 0.2"])
def test_other_radii_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--curve: got '.*', need"):
        parse_radii(text, "--curve")


def test_built_in_configurations_are_found() -> None:
    assert config_path(sources.BUILT_IN).is_file()
    with pytest.raises(InputError, match="not among the built-in"):
        config_path("nothing.yaml")


def test_a_data_folder_that_moved_is_asked_for(trained) -> None:
    manifest = json.loads((trained / "manifest.json").read_text())
    manifest["data"]["options"]["spec"] = "folder:gone"
    (trained / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"was trained on 'folder:gone'; say where it is now with --data"):
        load_sources(SourceOptions(detector=str(trained)))


def test_outlier_sets_that_the_training_was_against_are_named_and_recorded(trained, capsys) -> None:
    manifest = json.loads((trained / "manifest.json").read_text())
    manifest["commands"] = [{"config": {"open_data": ["transforms:jigsaw", "textures:grid"]}}]
    (trained / "manifest.json").write_text(json.dumps(manifest))
    options = SourceOptions(detector=str(trained), protocol="ood", outliers="textures", limit=2)
    _, split = load_sources(options)
    said = "was trained against textures:grid, which is tested on"
    assert split.probe["seen_in_training"] == said
    assert f"warning: pixel_nn: {said}" in capsys.readouterr().err
