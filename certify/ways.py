"""The ways to put noise before, inside or away from a detector's score.

| way         | the smoothed score                 | reads                | Lipschitz term |
|-------------|------------------------------------|----------------------|----------------|
| `input`     | A(x + noise)                       | x + noise            | 0              |
| `denoise`   | A(R(x + noise))                    | x + noise            | 0              |
| `reference` | S(x, R(x + noise))                 | x and x + noise      | L of S in x    |
| `sure`      | SURE of R at x + noise             | x + noise            | 0              |
| `none`      | A(x), no noise                     | x                    | L of A         |

A detector is any object with the methods its way needs, or a plain callable `score(images) -> (batch,)`.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from torch import nn

from certify.checks import InputError, check_choice, check_positive
from certify.sampler import NoisyScore
from certify.sure import sure_score
from certify.types import ScoreFunction

Way: TypeAlias = Literal["input", "denoise", "reference", "sure", "none"]
WAYS: tuple[Way, ...] = ("input", "denoise", "reference", "sure", "none")


def make_base(detector: Any, way: Way, *, sigma: float, purifier: Any = None) -> tuple[NoisyScore, float]:
    """Return the score to be drawn under noise and the Lipschitz constant of its split certificate.

    Args:
        detector: `input` and `denoise` need `score(images)`, or a plain callable; `reference` needs
            `score_pair(reference, reconstruction)` and a float `pair_lipschitz`; `sure` nothing but
            `reconstruct` (see `certify.sure`: the squared error against the clean image, which it never reads).
        way: any of WAYS but `none`.
        sigma: the noise that is added; given to `reconstruct(noisy, sigma)`.
        purifier: an object with `reconstruct(noisy, sigma)` that reads the noisy image only; the detector
            itself if None. Not for `sure`, which would read nothing of the detector then.

    Raises:
        InputError: if the detector lacks what the way needs, or is in training mode, or a purifier has no use.
    """
    check_choice(way, WAYS, "smoothing")
    check_positive(sigma, "sigma")
    for module in (detector, purifier):
        check_eval(module)
    if way == "none":
        raise InputError("smoothing 'none' adds no noise: its bounds come from score_interval and lipschitz")
    if way == "input":
        score = score_function(detector)
        return lambda clean, noisy: score(noisy), 0.0
    if way == "sure":
        if purifier is not None:
            raise InputError(
                "smoothing 'sure' scores a reconstruction alone; give the purifier as the detector"
            )
        own = needed_method(detector, "reconstruct", way)
        return lambda clean, noisy: sure_score(own, noisy, sigma), 0.0
    reconstruct = needed_method(detector if purifier is None else purifier, "reconstruct", way)
    if way == "denoise":
        score = score_function(behind(detector, purifier))
        return lambda clean, noisy: score(reconstruct(noisy, sigma)), 0.0
    score_pair = needed_method(detector, "score_pair", way)
    lipschitz = proven_constant(detector, "pair_lipschitz", way)
    return lambda clean, noisy: score_pair(clean.expand_as(noisy), reconstruct(noisy, sigma)), lipschitz


def score_function(detector: Any) -> ScoreFunction:
    """Return `detector.score`, or the detector itself if it is a plain callable."""
    # a Detector of diffad checks [0, 1] in `score`; noise leaves it, so it offers `score_noisy` beside it
    score = getattr(detector, "score_noisy", None) or getattr(detector, "score", detector)
    if not callable(score):
        raise InputError(f"detector: {type(detector).__name__} has no score(images) and is not callable")
    return score  # type: ignore[no-any-return]


def behind(detector: Any, purifier: Any) -> Any:
    """Return what scores a reconstruction: of a detector that purifies for another one, that one (its `behind`)."""
    inner = getattr(detector, "behind", None) if purifier is None else None
    return detector if inner is None else inner


def needed_method(owner: Any, name: str, way: str) -> Any:
    """Return a method, or say which way needs it."""
    method = getattr(owner, name, None)
    if not callable(method):
        raise InputError(
            f"smoothing {way!r} needs a method {name}, which {_name(owner)} lacks; {_remedy(owner)}"
        )
    return method


def proven_constant(detector: Any, name: str, way: str) -> float:
    """Return a Lipschitz constant that the detector declares; there is no default."""
    value = getattr(detector, name, None)
    if value is None:
        raise InputError(
            f"smoothing {way!r} needs a proven constant {name}, which {_name(detector)} lacks; {_remedy(detector)}"
        )
    return check_positive(float(value), name)


def _name(owner: Any) -> str:
    """Return what a user calls a detector: its name, a function's, else its class."""
    name = getattr(owner, "name", None) or getattr(owner, "__name__", None)
    return name if isinstance(name, str) else type(owner).__name__


def _remedy(owner: Any) -> str:
    """Say which ways a detector has: those whose constant it declares, and `input`, which smooths any score."""
    proven = {"none": "lipschitz", "reference": "pair_lipschitz"}
    own = [f"{way!r}" for way, constant in proven.items() if getattr(owner, constant, None) is not None]
    return f"use {' or '.join([*own, repr('input')])} (which takes any score, and a sigma)"


def check_eval(module: Any) -> None:
    """Refuse layers that couple the images of a batch or draw at random, most of them in training mode only."""
    layers = module.modules() if isinstance(module, nn.Module) else ()
    for layer in layers:
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None:
            raise InputError(
                f"{type(module).__name__}: {type(layer).__name__} keeps no running statistics, so that it reads those "
                "of the batch even after eval(); use track_running_stats=True"
            )
        if layer.training and isinstance(
            layer, nn.modules.batchnorm._BatchNorm | nn.modules.dropout._DropoutNd
        ):
            raise InputError(
                f"{type(module).__name__}: {type(layer).__name__} is in training mode; call eval() first"
            )
