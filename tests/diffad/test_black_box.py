from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad import Detector
from diffad.attacks import Material, attack
from diffad.black_box import OTHERS, classification_against_detection, format_transfer, transfer_table
from diffad.data import ImageSet
from diffad.data.records import Record

DIRECTIONS = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(3))


class Linear(Detector):
    """The inner product with one direction."""

    name = "linear"

    def __init__(self, place: int) -> None:
        super().__init__()
        self.place = place

    def _fit(self, train: Tensor, seed: int) -> None:
        pass

    def _score(self, images: Tensor, noise: Tensor | None) -> Tensor:
        return (images * DIRECTIONS[self.place]).sum((1, 2, 3))


def linear(place: int) -> Detector:
    return Linear(place).fit(torch.rand(2, 1, 4, 4))


@pytest.fixture(scope="module")
def test_set() -> ImageSet:
    """Anomalies of two sets of different size lie along the sum of all directions."""
    generator = torch.Generator().manual_seed(0)
    noise = 0.5 + 0.05 * torch.randn(30, 1, 4, 4, generator=generator)
    noise[15:] += 0.005 * DIRECTIONS.sum(0)
    kinds = ["good"] * 15 + ["near/a"] * 5 + ["far/b"] * 10
    noise[20:] += 0.01 * DIRECTIONS.sum(0)
    return ImageSet.from_records(
        [
            Record(image, int(kind != "good"), f"{place}", kind)
            for place, (image, kind) in enumerate(zip(noise.clamp(0, 1), kinds, strict=True))
        ]
    )


def test_it_is_the_transfer_attack_for_every_pair(test_set: ImageSet) -> None:
    detectors = {"a": linear(0), "b": linear(1), "c": linear(2)}
    rows = transfer_table(detectors, test_set, norm="linf", eps="8/255", steps=5, batch_size=8)
    cells = {(row["source"], row["target"]): row for row in rows}
    assert len(rows) == len(cells) == 12
    for (source, target), row in cells.items():
        sources = {source} if source != OTHERS else set(detectors) - {target}
        material = Material(sources={name: detectors[name].score for name in sources})
        found = attack(
            detectors[target],
            test_set.images,
            test_set.labels,
            norm="linf",
            eps="8/255",
            method="transfer",
            steps=5,
            material=material,
        )
        difference = found.scores[15:, None] - found.scores[None, :15]
        assert row["both"] == pytest.approx(float((difference > 0).mean()), abs=1e-9)
        assert row["both"] <= min(row["in"], row["out"]) <= row["clean"]
    for target in detectors:
        assert cells[target, target]["both"] <= cells[OTHERS, target]["both"]


def test_other_sources_and_means_over_outlier_sets(test_set: ImageSet) -> None:
    given = {"norm": "l2", "eps": 0.1, "steps": 3}
    (row, others) = transfer_table({"a": linear(0)}, test_set, sources={"b": linear(1)}, **given)
    assert (row["source"], others["source"]) == ("b", OTHERS)
    assert {side: row[side] for side in ("clean", "both")} == {
        side: others[side] for side in ("clean", "both")
    }
    mean = transfer_table({"a": linear(0)}, test_set, options={"protocol": "ood"}, **given)
    assert [one["source"] for one in mean] == ["a"]
    scores = linear(0).score_array(test_set.images)
    parts = [(scores[part][:, None] > scores[None, :15]).mean() for part in (slice(15, 20), slice(20, 30))]
    assert mean[0]["clean"] == pytest.approx(np.mean(parts))
    assert mean[0]["clean"] != pytest.approx(row["clean"])


def test_the_table_as_text(test_set: ImageSet) -> None:
    rows = transfer_table({"a": linear(0), "b": linear(1)}, test_set, norm="linf", eps=0.01, steps=2)
    lines = format_transfer(rows).splitlines()
    assert lines[0].split() == ["source", "\\", "target", "a", "b"]
    assert [line.split("  ")[0] for line in lines[1:]] == ["no attack", "a", "b", OTHERS]
    with pytest.raises(InputError, match="side: got 'top'"):
        format_transfer(rows, "top")
    with pytest.raises(InputError, match="need targets and sources by name"):
        transfer_table({}, test_set, norm="linf", eps=0.01)


def test_an_attack_on_the_classifier_need_not_be_one_on_the_detector(test_set: ImageSet) -> None:
    """The logits look along one direction, the detector along another."""

    def logits(images: Tensor) -> Tensor:
        seen = ((images - 0.5) * DIRECTIONS[1]).sum((1, 2, 3))
        return torch.stack([seen, -seen], 1)

    rows = classification_against_detection(
        linear(0), logits, test_set, norm="linf", eps=0.05, method="pgd", steps=10
    )
    by_name = {row["attack"]: row for row in rows}
    assert set(by_name) == {"classification", "detection"}
    assert by_name["detection"]["both"] < by_name["classification"]["both"]
    assert by_name["classification"]["changed_class"] > by_name["detection"]["changed_class"]
    assert by_name["detection"]["clean"] == by_name["classification"]["clean"]


class Noisy(Linear):
    """A detector with noise of its own."""

    name = "noisy"
    is_random = True


def test_what_a_table_cannot_speak_of_is_refused(test_set: ImageSet) -> None:
    given = {"norm": "linf", "eps": 0.01, "steps": 2}
    noisy = Noisy(0).fit(torch.rand(2, 1, 4, 4))
    with pytest.raises(InputError, match="a: noisy has noise of its own"):
        transfer_table({"a": noisy}, test_set, **given)
    with pytest.raises(InputError, match="noisy has noise of its own"):
        classification_against_detection(noisy, lambda x: x.flatten(1), test_set, **given)
    blind = linear(1)
    blind.has_gradient = False
    with pytest.raises(InputError, match="b: linear has no gradient to craft by"):
        transfer_table({"a": linear(0)}, test_set, sources={"b": blind}, **given)
