"""certify against Adversarial Robustness Toolbox's randomized smoothing: `python benchmarks/against_art.py`.

One problem in the shape that both can do: a network with a score, seen by the Toolbox as a classifier with the
logits (0, score), certified at threshold 0 with n0 selection draws and n fresh ones an image. Both sides run in turn
in one process, on the same network, images, draws and batch size; the median of the paired ratios is printed.
Needs `pip install adversarial-robustness-toolbox`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from certify import SmoothedDetector, certified_radius
from diffad.diffusion.model import Denoiser

SIGMA, ALPHA, SELECTION = 0.25, 0.001, 100


class Small(nn.Module):
    """A score from two small convolutions: overhead shows."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Score (b,) of images (b, 1, h, w)."""
        return self.layers(images)[:, 0]


class Heavy(nn.Module):
    """The size of the digits UNet's reconstruction error: the network decides."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.denoiser = Denoiser.build(
            (1, side, side), block_out_channels=(64, 128), space_to_depth=2, prediction_type="v_prediction"
        )

    def forward(self, images: Tensor) -> Tensor:
        """Score (b,) of images (b, 1, h, w)."""
        return (images - self.denoiser.denoise(images, SIGMA)).flatten(1).norm(dim=1) - 8.0


class TwoLogits(nn.Module):
    """The score as a classifier."""

    def __init__(self, score: nn.Module) -> None:
        super().__init__()
        self.score = score

    def forward(self, images: Tensor) -> Tensor:
        """Logits (b, 2)."""
        score = self.score(images)
        return torch.stack([torch.zeros_like(score), score], dim=1)


def ours(score: nn.Module, images: Tensor, n: int, batch_size: int) -> Callable[[], np.ndarray]:
    """Certified radii (images,) by certify."""
    chooser = SmoothedDetector(score, SIGMA, "input", n=SELECTION, batch_size=min(batch_size, SELECTION))
    smoothed = SmoothedDetector(score, SIGMA, "input", n=n, batch_size=batch_size)

    def certify() -> np.ndarray:
        anomalous = (chooser.noisy_scores(images, range(len(images)), "select") > 0).mean(1) > 0.5
        draws = smoothed.noisy_scores(images, range(len(images)))
        sides = [certified_radius(draws, 0.0, SIGMA, ALPHA, side) for side in ("anomalous", "normal")]
        return np.where(anomalous, *sides)

    return certify


def theirs(score: nn.Module, images: Tensor, n: int, batch_size: int) -> Callable[[], np.ndarray]:
    """Certified radii (images,) by the Toolbox."""
    try:
        from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing
    except ImportError as error:
        sys.exit(f"{error}; install it: pip install adversarial-robustness-toolbox")
    smoothing = PyTorchRandomizedSmoothing(
        model=TwoLogits(score).eval(), loss=nn.CrossEntropyLoss(), input_shape=tuple(images.shape[1:]), nb_classes=2,
        device_type="cpu", sample_size=SELECTION, scale=SIGMA, alpha=ALPHA,
    )  # fmt: skip
    pixels = images.numpy()
    return lambda: smoothing.certify(pixels, n=n, batch_size=batch_size)[1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=16, help="height and width of the images")
    parser.add_argument("--n", type=int, default=1000, help="draws an image")
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--batch_size", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    images = torch.rand(
        options.images, 1, options.side, options.side, generator=torch.Generator().manual_seed(0)
    )
    print(f"{'network':<8}{'certify':>12}{'Toolbox':>12}{'ratio':>8}   median seconds of {options.repeats}")
    for name, network in (("small", Small()), ("heavy", Heavy(options.side))):
        with torch.no_grad():
            score = network.eval()
            score(images)  # sizes the lazy layer
        sides = [make(score, images, options.n, options.batch_size) for make in (ours, theirs)]
        radii = [side() for side in sides]  # warm-up, and a look at the result
        if not np.allclose(*radii, atol=0.15):
            sys.exit(f"{name}: the two sides certify different radii: {radii}")
        pairs = [[seconds(side) for side in sides] for _ in range(options.repeats)]
        mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(pair[1] / pair[0] for pair in pairs)
        print(f"{name:<8}{mine:>12.3f}{other:>12.3f}{ratio:>8.2f}")


def seconds(task: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
