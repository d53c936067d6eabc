"""An attacked image outside of its certified interval is found, saved and fatal; chance alone is not."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from certify.checks import InputError
from certify.types import ScoreBounds
from diffad.compare import compare_command
from diffad.evidence import Evidence, evidence_path, read_evidence, write_evidence
from diffad.order import OrderError, check_order
from diffad.results import write_run
from diffad.sandwich import LEVEL, check_sandwich, save_violations

DRAWS = 400


@pytest.fixture
def run(tmp_path, synthetic):
    return synthetic.run(tmp_path / "run", detector="diffusion", smoothing="reference")


def attacks(run):
    return [c for c in run.conditions if c.condition == "attack" and c.norm == "l2"]


def drawn(attacked, shift=0.0, seed=0, percentile=0.5):
    """Draws whose median is the recorded end of each image, moved by `shift` (n,)."""
    labels = attacked.images.labels
    ends = np.where(labels == 0, attacked.bounds.upper, attacked.bounds.lower) + shift
    noise = np.random.default_rng(seed).normal(size=(len(labels), DRAWS)) * 0.01
    images = torch.rand(len(labels), 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return Evidence(attacked.images.index, images, percentile, np.sort(ends[:, None] + noise, axis=1))


def with_evidence(run, shift=0.0):
    for number, attacked in enumerate(attacks(run)):
        write_evidence(run.folder, attacked, drawn(attacked, shift, number))
    return run


def test_a_sound_run_is_judged_and_keeps_its_certificate(run) -> None:
    found = check_sandwich([with_evidence(run)])
    assert (found.judged, found.unjudged, found.violations) == (2 * 40, 0, ())
    assert found.sentence.endswith("0 of 80 attacked images left their certified interval")


def test_an_image_beyond_its_bounds_by_more_than_chance_is_a_violation(run, tmp_path) -> None:
    shift = np.zeros(40)
    shift[3], shift[25] = 1.0, -1.0  # one normal, one anomaly, at both radii
    found = check_sandwich([with_evidence(run, shift)])
    assert [(v.attacked.radius, v.position) for v in found.violations] == [
        *((0.1, 3), (0.1, 25), (0.25, 3), (0.25, 25)),
    ]
    worst = found.violations[0]
    assert worst.score[0] > worst.bounds[1]
    folder = save_violations(tmp_path / "violations", found.violations)
    records = json.loads((folder / "violations.json").read_text())
    assert [record["image_index"] for record in records] == [3, 25, 3, 25]
    kept = load_file(folder / records[0]["file"])["image"]
    assert torch.equal(kept, worst.image)
    shown = np.asarray(Image.open(folder / "000.png"))
    np.testing.assert_allclose(shown / 255, kept[0].numpy(), atol=0.5 / 255 + 1e-6)


def test_an_estimate_that_chance_may_have_moved_is_none(run) -> None:
    """Just beyond the bound, but the interval at .001 over the checks still reaches it."""
    certified = next(c for c in run.conditions if c.condition == "certified" and c.radius == 0.1)
    attacked = next(c for c in attacks(run) if c.radius == 0.1)
    normal = attacked.images.labels == 0
    gap = np.where(normal, certified.bounds.upper - attacked.bounds.upper, 0.0)
    for beyond, expected in ((0.0005, 0), (0.01, 20)):
        write_evidence(run.folder, attacked, drawn(attacked, np.where(normal, gap + beyond, 0.0)))
        found = check_sandwich([run])
        assert found.judged == 40
        assert len(found.violations) == expected
    assert LEVEL == 0.001


def test_a_score_without_noise_is_judged_by_its_enclosure(tmp_path, synthetic) -> None:
    run = synthetic.run(tmp_path / "run", smoothing="none")
    attacked = attacks(run)[0]
    certified = next(c for c in run.conditions if (c.condition, c.radius) == ("certified", attacked.radius))
    images, ends = torch.zeros(40, 1, 2, 2), np.array([certified.bounds.upper, certified.bounds.upper + 1])
    touching = Evidence(attacked.images.index, images, enclosure=ends)
    write_evidence(run.folder, attacked, touching)
    assert check_sandwich([run]).violations == ()
    write_evidence(run.folder, attacked, replace(touching, enclosure=np.nextafter(ends, np.inf)))
    assert len(check_sandwich([run]).violations) == 40


def test_only_certificates_at_their_total_alpha_can_be_broken(run, tmp_path) -> None:
    def convention(c):
        return replace(c, alpha_kind="per_image") if c.condition == "certified" else c

    other = write_run(tmp_path / "other", run.manifest, [convention(c) for c in run.conditions])
    assert check_sandwich([with_evidence(other, np.full(40, 9.0))]).judged == 0


def test_evidence_of_other_rows_is_no_evidence(run) -> None:
    with_evidence(run)
    attacked = attacks(run)[0]
    assert read_evidence(run.folder, attacked) is not None
    other = replace(attacked, bounds=replace(attacked.bounds, upper=attacked.bounds.upper + 1))
    assert read_evidence(run.folder, other) is None
    for condition in attacks(run):
        evidence_path(run.folder, condition).unlink()
    found = check_sandwich([run])
    assert (found.judged, found.unjudged) == (0, 80)
    assert "kept no images" in found.sentence
    for condition in attacks(run):
        images = torch.zeros(len(condition.images), 1, 4, 4)
        write_evidence(run.folder, condition, Evidence(condition.images.index, images))
    found = check_sandwich([run])
    assert (found.judged, found.unjudged) == (0, 80)
    assert "kept nothing to judge them by" in found.sentence


def test_a_certificate_of_another_percentile_does_not_speak_of_the_attack(run, tmp_path) -> None:
    manifest = {**run.manifest, "commands": [{"command": "certify", "config": {"percentile": 0.3}}]}
    other = replace(with_evidence(run), manifest=manifest)
    with pytest.raises(InputError, match=r"percentile 0\.3 of the noisy score, the attack about 0\.5"):
        check_sandwich([other])


def test_compare_fails_loudly_and_saves_the_image(run, tmp_path, capsys) -> None:
    output = tmp_path / "out"
    compare_command([with_evidence(run).folder], output)
    assert "0 of 80 attacked images left their certified interval" in capsys.readouterr().out
    assert not (output / "violations").exists()
    shift = np.zeros(40)
    shift[0] = 1.0
    with pytest.raises(
        OrderError, match=r"2 of 80 attacked images left.*violations.*000\.png under"
    ) as error:
        compare_command([with_evidence(run, shift).folder], output)
    assert "\n" not in str(error.value)
    assert (output / "violations" / "000.png").is_file()


def test_two_attacks_of_one_key_are_both_judged(run, tmp_path, synthetic) -> None:
    """Budgets and seeds are not in the key of a condition: neither folder may hide what the other found."""
    shift = np.zeros(40)
    shift[3] = 1.0
    with_evidence(run, shift)
    weak = with_evidence(write_run(tmp_path / "weak", run.manifest, run.conditions))
    for runs in ([run, weak], [weak, run]):
        found = check_sandwich(runs)
        assert [v.position for v in found.violations] == [3, 3]
        assert found.judged == 2 * 80
    assert check_sandwich([run, run]).judged == 80


def test_two_certificates_of_one_key_are_both_checked(run, tmp_path) -> None:
    def narrow(c):
        if c.condition != "certified":
            return c
        return replace(c, bounds=ScoreBounds(c.bounds.lower + 9.0, c.bounds.upper + 9.0))

    with_evidence(run)
    other = write_run(
        tmp_path / "other", run.manifest, [narrow(c) for c in run.conditions if c.norm != "linf"]
    )
    certified = replace(other, conditions=tuple(c for c in other.conditions if c.condition == "certified"))
    for runs in ([run, certified], [certified, run]):
        assert len(check_sandwich(runs).violations) == 80


def purified(run, folder, kinds, command, **config):
    """The rows of these kinds under a manifest of one command that denoised with a purifier."""
    config = {"smoothing": "denoise", "sigma": 1.0, "n": 1000, "percentile": 0.5, **config}
    manifest = {
        **run.manifest,
        "commands": [{**run.manifest["commands"][0], "command": command, "config": config}],
    }
    return write_run(folder, manifest, [c for c in run.conditions if c.condition in kinds])


def test_scores_of_two_purifiers_are_two_scores(tmp_path, synthetic) -> None:
    run = synthetic.run(tmp_path / "run", detector="diffusion", smoothing="denoise")
    kept = {"purifier": "one", "purifier_fingerprint": "aaaa"}
    for number, (certify, attack, judged) in enumerate(
        [
            (kept, kept, 80),
            (kept, {**kept, "purifier_fingerprint": "bbbb"}, 0),
            (kept, {}, 0),
            ({"purifier": None}, {"purifier": None, "purifier_fingerprint": None}, 80),
            ({"purifier": "one"}, {"purifier": "one"}, 80),  # as manifests were before they held fingerprints
            ({"purifier": "one"}, {"purifier": "two"}, 0),
        ]
    ):
        proved = purified(run, tmp_path / f"{number}c", ("certified", "clean"), "certify", **certify)
        tried = with_evidence(purified(run, tmp_path / f"{number}a", ("attack",), "diffad attack", **attack))
        assert check_sandwich([proved, tried]).judged == judged
        assert check_order([proved, tried]).scores == judged


@pytest.mark.parametrize("kind", ["failures", "population"])
def test_certificates_of_a_whole_set_are_not_judged_and_this_is_said(run, tmp_path, kind) -> None:
    def convention(c):
        return replace(c, alpha_kind=kind) if c.condition == "certified" else c

    other = write_run(tmp_path / "other", run.manifest, [convention(c) for c in run.conditions])
    found = check_sandwich([with_evidence(other, np.full(40, 9.0))])
    assert (found.judged, found.unjudged, found.violations) == (0, 80, ())
    assert found.sentence == (
        "80 meet a certificate of a whole set, not of each image (--confidence failures or population)"
    )


def test_images_that_could_not_fail_are_not_judged(run, tmp_path) -> None:
    first, second = attacks(run)
    kept = drawn(first, np.full(40, 9.0))
    write_evidence(run.folder, first, replace(kept, draws=kept.draws[:, :8]))
    write_evidence(run.folder, second, drawn(second))
    found = check_sandwich([run])
    assert (found.judged, found.unjudged, found.violations) == (40, 40, ())
    assert found.sentence.endswith(
        "0 of 40 attacked images left their certified interval; 40 have too few draws to be judged"
    )

    def lost(c):
        ends = np.full(40, np.inf)
        return replace(c, bounds=ScoreBounds(-ends, ends)) if c.condition == "certified" else c

    infinite = write_run(tmp_path / "infinite", run.manifest, [lost(c) for c in run.conditions])
    found = check_sandwich([with_evidence(infinite)])
    assert (found.judged, found.sentence) == (0, "80 have no finite bound to leave")
