"""Attack from other images: a local search has the more to gain, the better the point is that it starts from.

A gradient at the clean image leads to the nearest hill. An attacker who holds other images starts from what they look
like instead: from the projection into the ball of the nearest image on the other side (in feature space, or in pixels),
as feature-target attacks do, and of the images with the worst scores of all. Where the ball holds them, the score that
is reached is at least as bad as theirs: at Linf eps 1, where everything may be shown, an attack that does not reach the
floor of the known images is broken (check S2), and this one reaches it by construction.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from certify.checks import InputError, check_images
from certify.types import FloatArray, ScoreFunction
from diffad.attacks.pgd import ascend, step_sizes
from diffad.attacks.search import Material, Search
from diffad.attacks.target import Target, batches

NEAREST, WORST = 4, 4  # starting points of each kind that are tried
FINALISTS = 3  # of them that are judged again under noise: the few draws of a step can't tell near ties apart
GREYS = 11  # flat images beside the references: the extremes of many scores, and known to everybody
_FEATURE_BATCH = 64


def feature_target(search: Search, steps: int) -> None:
    """Ascend as PGD does, by the cosine schedule, from the best of the starting points that references give.

    Restart r begins at the r-th best, among which is the point of a smaller radius, if any. The other side is read off
    the scores, since a score is what an attacker wants to steal: the references above the median for a normal image,
    those below it for an anomaly.
    Costs `steps` gradients and NEAREST + WORST + 2 scores.
    """
    ascend(search, best_start(search), step_sizes(search.threat.eps, steps, "cosine"))


def best_start(search: Search) -> Tensor:
    """Return of each row the starting point (b, c, h, w) with the best score, of restart r the r-th best.

    Beside the references it is where the row stands: the clean image, or what a smaller radius or a random start gave.
    Costs NEAREST + WORST + 1 scores; of a noisy target these rest on the draws of one step, and the best FINALISTS are
    ordered by the many draws that choose between points at the end.
    """
    shown = [search.threat.project(reference, search.clean) for reference in choose_references(search)]
    starts = torch.stack([*shown, search.start])
    gains = torch.stack([search.query(points) for points in starts])
    order = gains.argsort(dim=0, descending=True, stable=True)
    rows = torch.arange(len(search.rows), device=order.device)
    if search.target.noisy:
        judged = torch.stack([search.judge(starts[place, rows]) for place in order[:FINALISTS]])
        again = judged.argsort(dim=0, descending=True, stable=True)
        order = torch.cat([order[:FINALISTS].gather(0, again), order[FINALISTS:]])
    ranks = torch.tensor(search.rows.restarts, device=order.device) % len(starts)
    return starts[order[ranks, rows], rows]


def choose_references(search: Search) -> list[Tensor]:
    """Return NEAREST + WORST references (b, c, h, w): of each row the nearest on the other side, then the worst."""
    material = search.material
    if material.references is None or material.reference_scores is None:
        raise InputError("references: none given, or without scores; complete them by `complete_references`")
    signs = search.direction.double().cpu().numpy()
    gains = signs[:, None] * material.reference_scores
    distances = _distances(search.clean, material.references, material.features)
    chosen = np.stack([_choose(*row) for row in zip(gains, distances, strict=True)], axis=1)
    return [material.references[row].to(search.clean) for row in chosen]


def complete_references(material: Material, target: Target, images: Tensor, scores: FloatArray) -> Material:
    """Return material whose references have scores and hold flat greys; without any, those are the attacked images.

    Args:
        images: (n, c, h, w) under attack, on the CPU; `scores` (n,) their clean scores.

    Raises InputError for references of another shape, out of range, or with a wrong number of scores.
    """
    references, known = material.references, material.reference_scores
    if references is None:
        if known is not None:
            raise InputError("reference_scores: given without references; give both, or neither")
        references, known = images, scores
    check_images(references, name="references")
    if references.shape[1:] != images.shape[1:]:
        raise InputError(
            f"references: got shape {tuple(references.shape[1:])}, the attacked images have "
            f"{tuple(images.shape[1:])}; bring both to one size"
        )
    references = references.detach().cpu().to(images.dtype)
    if known is None:
        known = target.scores(references, range(len(references)), "select")
    if known.shape != (len(references),) or not np.isfinite(known).all():
        raise InputError(
            f"reference_scores: got shape {known.shape} for {len(references)} references, need one finite score each"
        )
    greys = torch.linspace(0, 1, GREYS).to(images).view(-1, 1, 1, 1).repeat(1, *images.shape[1:])
    grey_scores = target.scores(greys, range(GREYS), "select")
    return replace(
        material,
        references=torch.cat([references, greys]),
        reference_scores=np.concatenate([known, grey_scores]),
    )


def _choose(gains: FloatArray, distances: FloatArray) -> list[int]:
    """Return the nearest references on the other side, then the worst of all: more of these where there are too few.

    A reference at distance 0 is the image itself, which leads nowhere.
    """
    worst = np.argsort(-gains, kind="stable")
    other_side = np.flatnonzero((gains > np.median(gains)) & (distances > 0))
    nearest = other_side[np.argsort(distances[other_side], kind="stable")][:NEAREST].tolist()
    wanted = NEAREST + WORST
    return list((nearest + np.resize(worst, wanted).tolist())[:wanted])


def _distances(clean: Tensor, references: Tensor, features: ScoreFunction | None) -> FloatArray:
    """Return the L2 distances (b, m) of clean images to references, between features or pixels."""

    def embed(images: Tensor) -> Tensor:
        with torch.no_grad():
            embedded = images if features is None else features(images)
        return embedded.flatten(1).double()

    exact = "donot_use_mm_for_euclid_dist"  # so that an image is at distance 0 from itself
    embedded = embed(clean)
    parts = [  # a chunk at a time: in float64 a thousand large images fill a device
        torch.cdist(embedded, embed(references[rows].to(clean)), compute_mode=exact).cpu()
        for rows in batches(len(references), _FEATURE_BATCH)
    ]
    return torch.cat(parts, dim=1).numpy()
