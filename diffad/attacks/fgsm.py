"""The fast gradient sign method (Goodfellow et al., ICLR 2015): one step of the whole radius."""

from __future__ import annotations

from diffad.attacks.search import Search


def fgsm(search: Search, steps: int) -> None:
    """Step by eps along the sign (Linf) or the direction (L2) of the gradient at the clean image.

    The first restart starts at the clean image whatever an attack at a smaller radius has found; any others start
    at random points (FGSM-RS). Exact for a linear score in Linf; in L2 only where no pixel meets the box.
    """
    points = search.start.clone()
    first = [row for row, restart in enumerate(search.rows.restarts) if restart == 0]
    points[first] = search.clean[first]
    _, gradient = search.gradient(points, 0)
    step = search.threat.eps * search.threat.ascent(gradient)
    search.offer(search.threat.project(points + step, search.clean))
