from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.cobra.crafting import STRATEGIES, Crafting, PseudoAnomalies, check_held_out, craft_seeds
from diffad.cobra.filter import NormalityFilter
from diffad.data.transforms import HARD_TRANSFORMS, apply

PAPER = STRATEGIES["paper"]


def test_an_image_depends_on_its_seed_alone(normality: NormalityFilter, eights: Tensor):
    pseudo, seeds = PseudoAnomalies(PAPER, normality), craft_seeds(0, range(12))
    whole = pseudo.craft(eights[:12], seeds=seeds, pool=eights)
    for row in (11, 3, 0):
        one = pseudo.craft(eights[row : row + 1], seeds=seeds[row : row + 1], pool=eights)
        assert torch.equal(one.images[0], whole.images[row])
        assert one.names[0] == whole.names[row]
        assert (one.p_values[0], one.tries[0]) == (whole.p_values[row], whole.tries[row])
    others = pseudo.craft(eights[:12], seeds=craft_seeds(1, range(12)), pool=eights)
    assert not any(torch.equal(a, b) for a, b in zip(whole.images, others.images, strict=True))


def test_accepted_ones_are_below_the_level_and_differ_from_their_image(
    normality: NormalityFilter, eights: Tensor
):
    before = torch.random.get_rng_state()
    crafted = PseudoAnomalies(PAPER, normality).craft(eights, seeds=craft_seeds(0, range(113)), pool=eights)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(crafted.accepted, crafted.p_values < 0.05)
    assert torch.equal(crafted.p_values, normality.p_values(crafted.images))
    assert float(crafted.accepted.float().mean()) > 0.95
    assert 0 <= float(crafted.images.min()) <= float(crafted.images.max()) <= 1
    assert all(2 <= len(names) <= 3 and len(set(names)) == len(names) for names in crafted.names)
    assert {name for names in crafted.names for name in names} == set(HARD_TRANSFORMS)
    assert len({names for names in crafted.names}) > len({tuple(sorted(names)) for names in crafted.names})


def test_a_draw_is_the_named_transforms_one_after_the_other(eights: Tensor):
    pseudo = PseudoAnomalies(Crafting(transforms=("jigsaw", "crop_extreme"), fewest=2, most=2, level=None))
    crafted = pseudo.craft(eights[:20], seeds=range(20))
    assert set(crafted.names) == {("jigsaw", "crop_extreme"), ("crop_extreme", "jigsaw")}
    for row in range(20):
        wanted, plan = eights[row : row + 1], pseudo._plan(row, 0, 0)
        assert plan.names == crafted.names[row]
        for name, seed in zip(plan.names, plan.seeds, strict=True):
            wanted = apply(name, wanted, seeds=[seed])
        assert torch.equal(crafted.images[row], wanted[0])


def test_a_filter_that_accepts_nothing_ends_at_the_cap(accepts_nothing: NormalityFilter, eights: Tensor):
    pseudo = PseudoAnomalies(replace(PAPER, cap=4), accepts_nothing)
    crafted = pseudo.craft(eights[:5], seeds=range(5), pool=eights)
    assert crafted.tries.tolist() == [4] * 5
    assert not bool(crafted.accepted.any())
    assert crafted.p_values.tolist() == [1.0] * 5


def test_the_identity_is_refused_as_often_as_normals_are_likely(
    normality: NormalityFilter, eights: Tensor, nothing: Crafting
):
    crafted = PseudoAnomalies(nothing, normality).craft(eights[60:], seeds=range(53))
    assert torch.equal(crafted.images, eights[60:])
    assert float((~crafted.accepted).double().mean()) >= 0.95  # these very normals set the p-values
    assert crafted.tries.tolist() == [3 if refused else 1 for refused in (~crafted.accepted).tolist()]


def test_the_level_of_the_released_code_lets_normals_pass_for_anomalies(
    normality: NormalityFilter, eights: Tensor, nothing: Crafting
):
    assert (PAPER.level, STRATEGIES["released_filter"].level) == (0.05, 0.99)
    released = PseudoAnomalies(replace(nothing, level=STRATEGIES["released_filter"].level), normality)
    crafted = released.craft(eights[60:], seeds=range(53))
    assert float(crafted.accepted.double().mean()) > 0.95


def test_at_the_cap_the_least_likely_draw_is_kept(normality: NormalityFilter, eights: Tensor):
    mild = Crafting(transforms=("mixup", "cutout"), fewest=1, most=1, level=0.02, cap=6)
    crafted = PseudoAnomalies(mild, normality).craft(eights[:30], seeds=range(30), pool=eights)
    capped = (~crafted.accepted).nonzero()[:, 0].tolist()
    assert capped
    for row in capped[:3]:
        tried = [
            PseudoAnomalies(replace(mild, cap=cap), normality).craft(
                eights[row : row + 1], seeds=[row], pool=eights
            )
            for cap in range(1, 7)
        ]
        best = [float(one.p_values) for one in tried]
        assert best == sorted(best, reverse=True)
        assert best[-1] == float(crafted.p_values[row])
        assert int(crafted.tries[row]) == 6
    assert torch.equal(normality.p_values(crafted.images), crafted.p_values)


def test_without_a_filter_the_first_draw_is_taken(eights: Tensor):
    crafted = PseudoAnomalies(STRATEGIES["no_filter"]).craft(eights[:9], seeds=range(9), pool=eights)
    assert bool(crafted.accepted.all())
    assert crafted.tries.tolist() == [1] * 9
    assert bool(crafted.p_values.isnan().all())


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_crafts(name: str, normality: NormalityFilter, eights: Tensor):
    crafting = STRATEGIES[name]
    pseudo = PseudoAnomalies(crafting, normality if crafting.level is not None else None)
    crafted = pseudo.craft(eights[:8], seeds=range(8), pool=eights if crafting.needs_pool else None)
    assert all(
        set(names) <= set(crafting.transforms) and crafting.fewest <= len(names) for names in crafted.names
    )
    assert int(crafted.tries.max()) <= crafting.cap


def test_the_released_filter_tries_one_transform_again(accepts_nothing: NormalityFilter, eights: Tensor):
    released = STRATEGIES["released_filter"]
    firsts = [
        PseudoAnomalies(replace(released, cap=cap), accepts_nothing)._plan(7, cap - 1, len(eights))
        for cap in (1, 2, 5)
    ]
    assert len({plan.names for plan in firsts}) == 1
    assert len({plan.seeds for plan in firsts}) == 3
    crafted = PseudoAnomalies(released, accepts_nothing).craft(eights[:3], seeds=range(3), pool=eights)
    assert crafted.tries.tolist() == [5] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transforms": ("jigsaw", "turn")}, "transforms: got 'turn'"),
        ({"transforms": ("jigsaw", "jigsaw")}, "need each at most once"),
        ({"fewest": 0}, "fewest, most: got 0, 3 of 13"),
        ({"fewest": 4}, "fewest, most: got 4, 3"),
        ({"transforms": ("jigsaw",)}, "of 1 transforms"),
        ({"level": 1.0}, "level: got 1.0"),
        ({"cap": 0}, "cap: got 0"),
    ],
)
def test_options_out_of_range_are_named(options: dict, message: str):
    with pytest.raises(InputError, match=message):
        Crafting(**options)


def test_missing_parts_are_named(normality: NormalityFilter, eights: Tensor):
    with pytest.raises(InputError, match=r"level 0\.05 needs a filter"):
        PseudoAnomalies(PAPER)
    pseudo = PseudoAnomalies(PAPER, normality)
    with pytest.raises(InputError, match="pool: got None"):
        pseudo.craft(eights[:2], seeds=[0, 1])
    with pytest.raises(InputError, match="seeds: got 1 for 2 images"):
        pseudo.craft(eights[:2], seeds=[0], pool=eights)


@pytest.mark.parametrize(("level", "fewest"), [(0.05, 20), (0.01, 100), (0.3, 3), (0.99, 1)])
def test_held_out_normals_too_few_for_the_level_are_refused(
    level: float, fewest: int, normality: NormalityFilter
):
    check_held_out(fewest, level)  # p-values from 1 / (fewest + 1)
    with pytest.raises(InputError, match=f"{fewest - 1} held-out normals .* need at least {fewest}:"):
        check_held_out(fewest - 1, level)
    with pytest.raises(InputError, match="53 held-out normals"):
        PseudoAnomalies(replace(PAPER, level=0.015), normality)


def test_seeds_differ_by_number_and_by_seed():
    assert len({*craft_seeds(0, range(50)), *craft_seeds(1, range(50))}) == 100
    assert craft_seeds(3, [7]) == craft_seeds(3, range(5, 9))[2:3]
