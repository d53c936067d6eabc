"""The threat: which images an attacker may show instead of the clean one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from certify.checks import InputError, check_choice
from certify.types import FloatArray

Norm: TypeAlias = Literal["l2", "linf"]
NORMS: tuple[Norm, ...] = ("l2", "linf")
Radius: TypeAlias = float | int | str  # [0, 1] pixel units, or a fraction as text: "8/255"

TOLERANCE = 1e-6  # float32 rounding of clean + perturbation may exceed eps by this much, never by more
_L2_MARGIN = 1e-6  # relative: aim this much inside the L2 ball, so that rounding does not leave it
_NEWTON_STEPS = 12
_START_KEY = (5, 1)  # the sampler's purpose "attack", then a marker: random starts share no stream with noise


class AttackError(RuntimeError):
    """A point that an attack was about to return breaks the threat model: a bug, never an input error."""


def parse_eps(value: Radius) -> float:
    """Return a radius in [0, 1] pixel units; strings may be fractions such as "8/255"."""
    try:
        eps = float(Fraction(value)) if isinstance(value, str) else float(value)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"eps: got {value!r}, need a number or a fraction such as '8/255'") from None
    if not np.isfinite(eps) or eps < 0:
        raise InputError(f"eps: got {value!r}, need a finite value of at least 0, in [0, 1] pixel units")
    return eps


@dataclass(frozen=True)
class ThreatModel:
    """All images within `eps` of the clean one in `norm`, with every pixel in [0, 1].

    `eps` is in [0, 1] pixel units of the tensor given to `score`. An L2 radius may exceed 1 (the box has the
    diameter sqrt(pixels)); an Linf radius may not, and one that does was most likely meant in 8-bit units.
    """

    norm: Norm
    eps: float

    def __post_init__(self) -> None:
        check_choice(self.norm, NORMS, "norm")
        parse_eps(self.eps)
        if self.norm == "linf" and self.eps > 1:
            raise InputError(f"eps: got {self.eps} for linf, need at most 1; write 8-bit units as '8/255'")

    @classmethod
    def parse(cls, norm: str, eps: Radius) -> ThreatModel:
        """Build from user input: `norm` one of NORMS, `eps` a number or a fraction such as "8/255"."""
        if norm not in NORMS:
            raise InputError(f"norm: got {norm!r}, allowed are {', '.join(NORMS)}")
        return cls(norm, parse_eps(eps))

    @property
    def radius(self) -> float | Tensor:
        """The radius, or of a threat with one for each row of a batch (b, 1, 1, 1): see `diffad.attacks.radii`."""
        return self.eps

    def distance(
        self, points: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, " b"]:
        """Return the distance of each point to its clean image, computed in float64."""
        difference = (points.detach().double() - clean.double()).flatten(1)
        return difference.norm(dim=1) if self.norm == "l2" else difference.abs().amax(1)

    def project(
        self, points: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b c h w"]:
        """Return the nearest image to each point within both the ball and the box (exact in both norms)."""
        if self.norm == "linf":
            return points.clamp(clean - self.radius, clean + self.radius).clamp(0.0, 1.0)
        radius = self.radius.flatten(1) if isinstance(self.radius, Tensor) else self.radius
        return (clean + _project_l2(points - clean, clean, radius * (1 - _L2_MARGIN))).clamp(0.0, 1.0)

    def inside(
        self, points: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b c h w"]:
        """Return the points, those that rounding left outside the ball moved in along the line to the clean image.

        Distances count in float64: a certificate of radius eps says nothing of an image 1e-7 farther away, and a
        score whose bound is attained would seem to leave it there.
        """
        points, back = points.clone(), 1e-7
        outside = self.distance(points, clean) > self.eps
        while bool(outside.any()):
            centre = clean[outside].double()
            share = self.eps / self.distance(points[outside], clean[outside]) * max(0.0, 1.0 - back)
            moved = centre + share.view(-1, 1, 1, 1) * (points[outside].double() - centre)
            points[outside] = moved.to(points)
            outside, back = self.distance(points, clean) > self.eps, 2.0 * back
        return points

    def ascent(self, gradient: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the unit step of steepest ascent: the sign (Linf) or the normalised gradient (L2).

        A zero gradient gives a zero step. Dividing by the largest entry first keeps tiny gradients, whose
        squares would underflow, usable.
        """
        if self.norm == "linf":
            return gradient.sign()
        flat = gradient.flatten(1)
        largest = flat.abs().amax(1, keepdim=True)
        scaled = flat / torch.where(largest > 0, largest, 1.0)
        length = scaled.norm(dim=1, keepdim=True)
        return (scaled / torch.where(length > 0, length, 1.0)).view_as(gradient)

    def random_start(
        self, clean: Float[Tensor, "b c h w"], indices: Sequence[int], *, seed: int, restart: int
    ) -> Float[Tensor, "b c h w"]:
        """Return a uniform draw from the ball around each clean image, brought into the box.

        A coordinate that leaves the box is mirrored at the clean one, and clipped only if that leaves it too. A clip
        alone would put half of a black background back where it was, where its gradient is often exactly zero.
        Keyed by (seed, image index, restart): the same start whatever the batch.
        """
        draws = [self._uniform_in_ball(clean.shape[1:], _generator(seed, i, restart)) for i in indices]
        offset = torch.from_numpy(np.stack(draws)).to(clean)
        outside = (clean + offset < 0.0) | (clean + offset > 1.0)
        return self.project(clean + torch.where(outside, -offset, offset), clean)

    def _uniform_in_ball(self, shape: Sequence[int], generator: np.random.Generator) -> FloatArray:
        if self.norm == "linf":
            return generator.uniform(-self.eps, self.eps, size=tuple(shape))
        direction = generator.standard_normal(tuple(shape))
        radius = self.eps * generator.uniform() ** (1.0 / direction.size)
        return np.asarray(radius * direction / np.linalg.norm(direction))

    def check(self, points: Float[Tensor, "b c h w"], clean: Float[Tensor, "b c h w"]) -> None:
        """Raise AttackError unless every point is finite, in [0, 1] and within eps + 1e-6 of its image."""
        if not bool(torch.isfinite(points).all()):
            raise AttackError("attacked images hold NaN or infinity")
        low, high = float(points.min()), float(points.max())
        if low < 0.0 or high > 1.0:
            raise AttackError(f"attacked images hold values in [{low}, {high}], outside [0, 1]")
        distance = float(self.distance(points, clean).max())
        if distance > self.eps + TOLERANCE:
            raise AttackError(f"an attacked image lies {distance} away in {self.norm}, eps is {self.eps}")


def _project_l2(delta: Tensor, clean: Tensor, eps: float | Tensor) -> Tensor:
    """Project perturbations onto the L2 ball cut by the box, exactly.

    The projection is clip(s * delta) for the largest s <= 1 whose norm is at most eps (KKT: the ball scales,
    the box clips). With t = s^2 the squared norm is sum(min(t * delta^2, room^2)), concave and piecewise
    linear in t, so Newton's iterates from the left rise to the solution and each is already feasible.
    Scaling to the ball and then clipping, the usual shortcut, stops short of the sphere where the box binds.
    """
    above = 1.0 - clean
    room = torch.where(delta > 0, above, clean)
    squared, room_squared = delta.square().flatten(1), room.square().flatten(1)
    t = (eps**2 / squared.sum(1, keepdim=True).clamp_min(torch.finfo(delta.dtype).tiny)).clamp_max(1.0)
    for _ in range(_NEWTON_STEPS):
        free = t * squared < room_squared
        slope = torch.where(free, squared, 0.0).sum(1, keepdim=True)
        left = eps**2 - torch.where(free, 0.0, room_squared).sum(1, keepdim=True)
        solved = left / slope.clamp_min(torch.finfo(delta.dtype).tiny)
        before, t = t, torch.maximum(t, torch.where(slope > 0, solved, 1.0)).clamp_max(1.0)
        if torch.equal(t, before):  # mostly after two or three iterates: no other coordinate meets the box
            break
    return (t.sqrt().view(-1, 1, 1, 1) * delta).clamp(-clean, above)


def _generator(seed: int, index: int, restart: int) -> np.random.Generator:
    sequence = np.random.SeedSequence(seed, spawn_key=(*_START_KEY, index, restart))
    return np.random.Generator(np.random.Philox(sequence))
