"""Making a keyed share of a certificate's noise again, and scoring it with the detector."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

from certify.noise import NOISE_CHUNK
from certify.pool import DrawPool
from certify.smoothing import SmoothedDetector
from certify.store import ScoreStore
from diffad.claims import Claim
from diffad.runs import Run
from diffad.tolerance import TOLERANCE, agreement, relative_gap, what_it_moves
from diffad.verification import Check


def check_redraw(
    claim: Claim,
    smoothed: SmoothedDetector,
    images: Tensor,
    store: ScoreStore,
    run: Run,
    *,
    share: float,
    key: int,
) -> Check:
    """Make a keyed share of the stored noise again, score it with the detector, and compare with the stored scores.

    They must be equal, or differ by rounding that cannot matter to the tables (`diffad.tolerance`).
    """
    purpose = str(store.config["purpose"])
    what = "test images" if purpose == "certify" else "held-out normals"
    name = f"redraw of {claim.name}, {what}"
    assert smoothed.base is not None
    names = ("sigma", "seed", "batch_size", "images_per_batch", "grid")
    digests = store.digests()
    indices = [index for index in digests if index < len(images)]
    if not indices or not store.config.keys() >= set(names):
        return Check(name, "not checked", "no draws are kept that this version can read")
    pool = DrawPool(
        smoothed.base,
        images[indices],
        indices,
        purpose=purpose,
        device=smoothed.device,
        probe=False,
        **{key: store.config[key] for key in names},
    )
    kept = [store.chunks(index, digests[index]) for index in indices]
    places = [(row, chunk) for row, chunks in enumerate(kept) for chunk in sorted(chunks)]
    chosen, gap = keyed_sample(len(places), share, key), 0.0
    for row, chunk in (places[place] for place in chosen):
        stored, again = kept[row][chunk], pool.redraw(row, chunk)
        gaps = relative_gap(stored, again)
        gap = max(gap, float(gaps.max()))
        if gap > TOLERANCE:
            at = int((gaps > TOLERANCE).argmax())
            where = f"image {indices[row]}, draw {chunk * NOISE_CHUNK + at}"
            other = f" ({other_software(store)})" if other_software(store) else ""
            return Check(name, "failed", f"{where}: stored {stored[at]!s}, redrawn {again[at]!s}{other}")
    moves = what_it_moves(gap, claim, run, smoothed.lipschitz)
    if moves is not None:
        return Check(name, "failed", moves)
    detail = f"{len(chosen)} of {len(places)} chunks of {NOISE_CHUNK} draws, {agreement(gap)}"
    return Check(name, "ok", detail)


def other_software(store: ScoreStore) -> str:
    """Return what may make the same key give other noise here, if anything: numpy keeps bit streams, not variates."""
    then = store.config.get("numpy")
    return "" if then == np.__version__ else f"drawn with numpy {then}, this is {np.__version__}"


def keyed_sample(count: int, share: float, key: int) -> list[int]:
    """Return a share of range(count), at least one, chosen by the key alone."""
    size = min(count, max(1, math.ceil(share * count)))
    return sorted(np.random.default_rng(key).choice(count, size, replace=False).tolist())
