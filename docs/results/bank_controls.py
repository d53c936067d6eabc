"""What fills the bank of a nearest-neighbour detector best? `python docs/results/bank_controls.py runs/digits-8 8`.

The gain of `generated_nn` over `pixel_nn` could come from the network, or from any images between the normals. Here the
same score (L = 1, certified without noise) is given banks that need no network: samples by the closed-form denoiser,
means of two normals, mixtures of five, normals plus noise, each 2000 images beside the training images. Prints the
certified AUROC (both sides) at L2 radius .1, .25 and .5 on the test images; with a third word writes it as JSON.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from certify import ScoreBounds, SmoothedDetector, auroc, delong_test
from certify.files import write_json
from diffad import detector_class, load_detector
from diffad.data import load_data
from diffad.generate import generate
from diffad.manifest import describe_data, git_state, versions

RADII = (0.1, 0.25, 0.5)
COUNT = 2000


def banks(train: Tensor, network: object) -> dict[str, Tensor]:
    """The images put beside the training images, by name."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randint(len(train), (2, COUNT), generator=generator)
    fives = torch.randint(len(train), (COUNT, 5), generator=generator)
    weights = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(5), COUNT)).float()
    noise = torch.randn(COUNT, *train.shape[1:], generator=generator)
    closed_form = detector_class("closed_form")().fit(train)
    return {
        "nothing (pixel_nn)": train[:0],
        "closed-form denoiser's samples": generate(closed_form.reconstruct, train, COUNT),
        "normals + noise .05": (train[pairs[0]] + 0.05 * noise).clamp(0, 1),
        "mixtures of five normals": torch.einsum("nk,nkchw->nchw", weights, train[fives]),
        "means of two normals": train[pairs].mean(0),
        "network's samples (generated_nn)": generate(network.reconstruct, train, COUNT),  # type: ignore[attr-defined]
    }


def main(folder: str, normal_class: str, output: str | None = None) -> None:
    """Print the table."""
    split = load_data("digits", normal_class=normal_class)
    labels, rows, bounds = split.test.labels.numpy(), [], {}
    print(f"{'beside the training images':<36}" + "".join(f"{radius:>8g}" for radius in RADII))
    for name, extra in banks(split.train.images, load_detector(folder)).items():
        detector = detector_class("pixel_nn")().fit(torch.cat([split.train.images, extra]))
        found = SmoothedDetector(detector, None, "none").bounds(split.test.images, range(len(labels)), RADII)
        values = [float(value) for value in np.atleast_1d(auroc(found, labels))]
        bounds[name] = found
        rows.append({"bank": name, "certified": values, "ahead_of_pixel_nn": ahead(bounds, name, labels)})
        print(f"{name:<36}" + "".join(f"{value:>8.3f}" for value in values))
    if output:
        data = describe_data(split)
        write_json(
            Path(output),
            {"data": data, "git": git_state(), "versions": versions(), "radii": RADII, "rows": rows},
        )


def ahead(bounds: dict[str, ScoreBounds], name: str, labels: np.ndarray) -> list[list[float]]:
    """Difference to `pixel_nn` at each radius with its paired 95 % interval (DeLong)."""
    first = next(iter(bounds.values()))
    tests = [delong_test(bounds[name].at(i), first.at(i), labels) for i in range(len(RADII))]
    return [[test.value, test.low, test.high] for test in tests]


if __name__ == "__main__":
    main(*sys.argv[1:])
