"""Batches of an attack on disk: resumed, shared, never mixed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from torch import Tensor

from certify import SmoothedDetector
from certify.checks import InputError
from certify.shards import Shard
from diffad.attacks import AttackResult, attack, attack_curve, attack_smoothed
from diffad.attacks.store import AttackStore, collect, digest

SHAPE = (1, 4, 4)
LABELS = [0, 1, 0, 1, 0]
OPTIONS = {"norm": "l2", "eps": 0.3, "steps": 6, "restarts": 3, "batch_size": 4}
IDENTITY = {"detector": "ripples"}


def images() -> Tensor:
    return torch.rand(len(LABELS), *SHAPE, generator=torch.Generator().manual_seed(0))


def ripples(points: Tensor) -> Tensor:
    return torch.cos(6.0 * points).flatten(1).sum(1) + 2.0 * points.flatten(1).amax(1)


class Counted:
    """The score, which counts its batches and, if told so, is killed at one of them."""

    def __init__(self, killed_at: int | None = None) -> None:
        self.calls, self.killed_at = 0, killed_at

    def __call__(self, points: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.killed_at:
            raise KeyboardInterrupt
        return ripples(points)


def assert_same(found: AttackResult, wanted: AttackResult) -> None:
    assert torch.equal(found.images, wanted.images)
    np.testing.assert_array_equal(found.scores, wanted.scores)
    np.testing.assert_array_equal(found.trace, wanted.trace)
    assert found.info == wanted.info


def searched(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/batch-*.safetensors"))


@pytest.fixture(scope="module")
def alone() -> AttackResult:
    """Without a store, uninterrupted."""
    return attack(ripples, images(), LABELS, **OPTIONS)


def test_a_store_changes_nothing_and_a_second_run_searches_nothing(alone, tmp_path) -> None:
    assert_same(attack(ripples, images(), LABELS, **OPTIONS, store=AttackStore(tmp_path, IDENTITY)), alone)
    assert len(searched(tmp_path)) == 4  # 15 rows by 4
    again = Counted()
    assert_same(attack(again, images(), LABELS, **OPTIONS, store=AttackStore(tmp_path, IDENTITY)), alone)
    assert again.calls == 2 * 2  # clean scores and the fresh pass


@pytest.mark.parametrize("killed_at", [1, 4, 12, 20, 27])
def test_an_attack_that_was_killed_goes_on_and_ends_the_same(killed_at, alone, tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        attack(Counted(killed_at), images(), LABELS, **OPTIONS, store=AttackStore(tmp_path, IDENTITY))
    before = {path: path.stat().st_mtime_ns for path in searched(tmp_path)}
    rest = Counted()
    assert_same(attack(rest, images(), LABELS, **OPTIONS, store=AttackStore(tmp_path, IDENTITY)), alone)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert rest.calls == 2 * 2 + 7 * (4 - len(before))  # 6 gradients and the last point a batch


@pytest.mark.parametrize(
    "change",
    [
        {"eps": 0.2},
        {"norm": "linf"},
        {"method": "pgd_constant"},
        {"steps": 7},
        {"restarts": 2},
        {"seed": 1},
        {"batch_size": 5},
        {"indices": [4, 3, 2, 1, 0]},
        {"objective": lambda points: points.flatten(1).sum(1)},
    ],
)
def test_another_attack_never_takes_batches_of_this_one(change, alone, tmp_path) -> None:
    attack(ripples, images(), LABELS, **OPTIONS, store=AttackStore(tmp_path, IDENTITY))
    other = {**OPTIONS, **change}
    found = attack(ripples, images(), LABELS, **other, store=AttackStore(tmp_path, IDENTITY))
    assert_same(found, attack(ripples, images(), LABELS, **other))
    assert len(list(tmp_path.iterdir())) == 2


def test_images_labels_and_detectors_are_told_apart(tmp_path) -> None:
    for shown, labels, identity in (
        (images(), LABELS, IDENTITY),
        (images().flip(0), LABELS, IDENTITY),
        (images(), [1, 0, 1, 0, 1], IDENTITY),
        (images(), LABELS, {"detector": "another"}),
    ):
        found = attack(ripples, shown, labels, **OPTIONS, store=AttackStore(tmp_path, identity))
        assert_same(found, attack(ripples, shown, labels, **OPTIONS))
    assert len(list(tmp_path.iterdir())) == 4


def test_a_curve_keeps_every_radius(tmp_path) -> None:
    def at(store: AttackStore | None = None, **given: object) -> AttackResult:
        return attack(ripples, images(), LABELS, **{**OPTIONS, **given}, store=store)

    wanted = attack_curve(at, [0.1, 0.2])
    for _ in range(2):
        kept = attack_curve(lambda **given: at(AttackStore(tmp_path, IDENTITY), **given), [0.1, 0.2])
        for one, other in zip(kept, wanted, strict=True):
            assert_same(one, other)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_batch_is_searched_again_and_said(alone, tmp_path, capsys) -> None:
    attack(ripples, images(), LABELS, **OPTIONS, store=AttackStore(tmp_path, IDENTITY))
    broken, foreign = searched(tmp_path)[:2]
    broken.write_bytes(broken.read_bytes()[:100])
    AttackStore(tmp_path, {"detector": "another"}).collect({}, 1, lambda _: {"points": torch.zeros(1)}, "x")
    foreign.write_bytes(next(tmp_path.glob("x-*/batch-00000.safetensors")).read_bytes())
    capsys.readouterr()
    assert_same(attack(ripples, images(), LABELS, **OPTIONS, store=AttackStore(tmp_path, IDENTITY)), alone)
    said = capsys.readouterr().err.splitlines()
    assert [broken.name in said[0], "damaged" in said[0], "another attack" in said[1]] == [True] * 3


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batches_and_each_returns_the_whole(world, alone, tmp_path) -> None:
    together, calls = Barrier(world, timeout=60), [Counted() for _ in range(world)]

    def run(rank: int) -> AttackResult:
        store = AttackStore(tmp_path, IDENTITY, Shard(rank, world, lambda: together.wait() and None))
        return attack(calls[rank], images(), LABELS, **OPTIONS, store=store)

    with ThreadPoolExecutor(world) as pool:
        for found in pool.map(run, range(world)):
            assert_same(found, alone)
    shares = [len(range(rank, 4, world)) for rank in range(world)]
    assert [counted.calls for counted in calls] == [4 + 7 * share for share in shares]


def test_a_process_that_cannot_see_the_others_batches_says_so(tmp_path) -> None:
    store = AttackStore(tmp_path, IDENTITY, Shard(0, 2, lambda: None))
    with pytest.raises(InputError, match="lacks a batch of another process"):
        attack(ripples, images(), LABELS, **OPTIONS, store=store)


def test_a_smoothed_attack_keeps_its_evaluation_too(tmp_path, monkeypatch) -> None:
    smoothed = SmoothedDetector(ripples, 0.25, "input", n=100, batch_size=50)
    options = {"norm": "l2", "eps": 0.2, "steps": 3, "eot": 4, "n_select": 50}
    arguments = (smoothed, images(), LABELS, range(len(LABELS)))
    wanted = attack_smoothed(*arguments, **options)
    assert_same(attack_smoothed(*arguments, **options, store=AttackStore(tmp_path, IDENTITY)), wanted)
    assert {path.parent.name.partition("-")[0] for path in searched(tmp_path)} == {"evaluate", "pgd"}

    def refuse(*_: object) -> None:
        raise AssertionError("drew again")

    monkeypatch.setattr("certify.pool.gaussian_noise", refuse)
    monkeypatch.setattr("diffad.attacks.smoothed.gaussian_noise", refuse)
    assert_same(attack_smoothed(*arguments, **options, store=AttackStore(tmp_path, IDENTITY)), wanted)


@pytest.mark.parametrize(
    "change", [{"grid": True}, {"seed": 1}, {"sigma": 0.3}, {"percentile": 0.4}, {"n": 150}]
)
def test_smoothed_scores_that_differ_in_their_noise_are_told_apart(change, tmp_path) -> None:
    eight_bit = (images() * 255).round() / 255
    for options in ({}, change):
        arguments = {"sigma": 0.25, "n": 100, "batch_size": 50, **options}
        smoothed = SmoothedDetector(ripples, smoothing="input", **arguments)
        attack_smoothed(
            *(smoothed, eight_bit, LABELS, range(len(LABELS))),
            **{"norm": "l2", "eps": 0.0, "steps": 1, "eot": 4, "n_select": 50},
            store=AttackStore(tmp_path, IDENTITY),
        )
    assert len(list(tmp_path.glob("evaluate-*"))) == len(list(tmp_path.glob("pgd-*"))) == 2


def test_without_a_store_everything_is_computed_in_order() -> None:
    assert collect(None, {}, 3, lambda place: {"place": torch.tensor(place)}, "x") == [
        {"place": torch.tensor(place)} for place in range(3)
    ]


def test_a_digest_is_of_type_shape_and_content() -> None:
    values = torch.arange(6.0)
    others = [values.double(), values.view(2, 3), values.flip(0), values.numpy()]
    assert [digest(other) == digest(values) for other in others] == [False, False, False, True]
    assert digest(None) is None


def test_info_and_bounds_survive(alone, tmp_path) -> None:
    found = attack(ripples, images(), LABELS, **OPTIONS, store=AttackStore(tmp_path, IDENTITY))
    assert found.info["gradient_evaluations"] == alone.info["gradient_evaluations"] == 15 * 6
    assert replace(found, trace=None).bounds().upper.tolist() == alone.bounds().upper.tolist()
