import numpy as np
import pytest
import torch
from torch import Tensor

from certify.checks import InputError
from diffad.attacks.threat import AttackError, ThreatModel, parse_eps


def bisected_projection(delta: Tensor, clean: Tensor, eps: float) -> Tensor:
    """Independent oracle in float64: clip(s * delta) for the largest feasible s in [0, 1]."""
    low = torch.zeros(len(delta), 1, 1, 1, dtype=torch.float64)
    high = torch.ones_like(low)

    def clipped(scale: Tensor) -> Tensor:
        return (clean + scale * delta).clamp(0, 1) - clean

    for _ in range(200):
        middle = (low + high) / 2
        inside = clipped(middle).flatten(1).norm(dim=1).view(-1, 1, 1, 1) <= eps
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return clean + clipped(
        torch.where(clipped(high).flatten(1).norm(dim=1).view(-1, 1, 1, 1) <= eps, high, low)
    )


@pytest.fixture
def clean() -> Tensor:
    return torch.rand(6, 2, 5, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("text", "value"), [("8/255", 8 / 255), ("0.25", 0.25), (0.5, 0.5), (0, 0.0)])
def test_eps_is_read_as_a_number_or_a_fraction(text, value):
    assert parse_eps(text) == value


@pytest.mark.parametrize("text", ["8/0", "eight", "-1/255", float("nan"), -0.1, float("inf")])
def test_an_eps_out_of_range_is_refused(text):
    with pytest.raises(InputError, match="eps"):
        parse_eps(text)


def test_a_linf_radius_in_8_bit_units_and_an_unknown_norm_are_refused():
    with pytest.raises(InputError, match="8/255"):
        ThreatModel.parse("linf", 8)
    with pytest.raises(InputError, match="l2, linf"):
        ThreatModel.parse("l1", 0.1)
    assert ThreatModel.parse("l2", 2).eps == 2.0


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.7, 2.0, 50.0])
def test_the_l2_projection_is_exact_where_the_box_binds(clean, eps):
    clean = clean.double()
    clean[0] = 0.0  # every pixel at the edge of the box
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points = clean + noise * torch.tensor([0.001, 0.1, 0.3, 1.0, 10.0, 1000.0]).view(-1, 1, 1, 1)
    threat = ThreatModel("l2", eps)
    expected = bisected_projection(points - clean, clean, eps)
    torch.testing.assert_close(threat.project(points, clean), expected, rtol=0, atol=3e-6 * max(eps, 1e-6))


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("eps", [0.0, 1 / 255, 0.3, 1.0])
def test_projections_satisfy_the_postconditions_and_leave_inner_points_alone(clean, norm, eps):
    threat = ThreatModel(norm, eps)
    far = clean + 3 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    projected = threat.project(far, clean)
    threat.check(projected, clean)
    torch.testing.assert_close(threat.project(projected, clean), projected, rtol=0, atol=1e-6)


def test_a_zero_gradient_gives_a_zero_step_and_a_tiny_one_a_unit_step():
    gradient = torch.zeros(3, 1, 2, 2)
    gradient[1] = 1e-30  # its squares underflow in float32
    gradient[2] = 1e30  # its squares overflow
    step = ThreatModel("l2", 0.1).ascent(gradient)
    assert torch.equal(step[0], torch.zeros(1, 2, 2))
    torch.testing.assert_close(step[1:].flatten(1).norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_random_starts_are_keyed_by_seed_image_and_restart(clean, norm):
    threat, indices = ThreatModel(norm, 0.3), [4, 9, 2, 7, 1, 0]
    starts = threat.random_start(clean, indices, seed=3, restart=1)
    alone = torch.cat(
        [threat.random_start(clean[i : i + 1], [index], seed=3, restart=1) for i, index in enumerate(indices)]
    )
    assert torch.equal(starts, alone)
    threat.check(starts, clean)
    for other in (
        threat.random_start(clean, indices, seed=4, restart=1),
        threat.random_start(clean, indices, seed=3, restart=2),
        threat.random_start(clean, indices[::-1], seed=3, restart=1),
    ):
        assert not torch.equal(starts, other)


def test_random_l2_starts_fill_the_ball_uniformly():
    clean, threat = torch.full((4000, 1, 1, 2), 0.5), ThreatModel("l2", 0.4)
    radii = threat.distance(threat.random_start(clean, range(4000), seed=0, restart=1), clean) / 0.4
    # in two dimensions P(radius <= r) = r^2; Kolmogorov-Smirnov at level 1e-6 allows 0.042
    ranks = torch.arange(1, 4001) / 4000
    assert float((radii.sort().values.square() - ranks).abs().max()) < 0.042


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_random_starts_leave_the_faces_of_the_box(norm):
    clean = torch.tensor([0.0, 1.0]).repeat(500, 8).reshape(500, 1, 4, 4)
    starts = ThreatModel(norm, 0.3).random_start(clean, range(500), seed=0, restart=1)
    assert float(starts.min()) > 0.0
    assert float(starts.max()) < 1.0


def test_points_that_break_the_threat_are_caught(clean):
    threat = ThreatModel("linf", 0.1)
    inside = clean.clamp(0.2, 0.8)
    threat.check(inside + 0.1, inside)
    with pytest.raises(AttackError, match="linf"):
        threat.check(inside + 0.1001, inside)
    with pytest.raises(AttackError, match="outside"):
        threat.check(clean - 1, clean)
    with pytest.raises(AttackError, match="NaN"):
        threat.check(clean * np.nan, clean)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_points_that_rounding_left_outside_are_moved_in_and_no_others(norm) -> None:
    """Certificates end at eps: 1024 float32 pixels near 1 put most points 1e-8 to 1e-6 beyond it."""
    generator = torch.Generator().manual_seed(0)
    clean = 0.6 + 0.3 * torch.rand(64, 1, 32, 32, generator=generator)
    threat = ThreatModel(norm, 0.1 if norm == "l2" else 0.012)
    step = threat.ascent(torch.randn(clean.shape, generator=generator))
    points = clean + threat.eps * step
    points[0] = clean[0]
    outside = threat.distance(points, clean) > threat.eps
    assert 16 < int(outside.sum()) < 64
    moved = threat.inside(points, clean)
    assert bool((threat.distance(moved, clean) <= threat.eps).all())
    assert torch.equal(moved[~outside], points[~outside])
    assert float((moved - points).abs().max()) < 1e-6
    assert bool((threat.distance(moved, clean)[outside] > threat.eps * (1 - 1e-4)).all())
    nowhere = ThreatModel(norm, 0.0)
    assert torch.equal(nowhere.inside(points, clean), clean)
