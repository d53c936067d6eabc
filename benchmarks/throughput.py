"""What certification costs beyond the bare network: `python benchmarks/throughput.py`.

Both sides run in turn in one process, A B A B ..., on the same network, batch size and number of draws; the medians and
their ratio are printed. Absolute figures mean nothing on another machine, the ratio does.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from certify import SmoothedDetector
from diffad.diffusion.detector import DiffusionDetector
from diffad.diffusion.model import Denoiser


def seconds(task: Callable[[], object]) -> float:
    """Wall time of one call, until a GPU has done its work too."""
    start = time.perf_counter()
    task()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Time certify's sampling against forward passes of the same network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=16)
    parser.add_argument("--n", type=int, default=1000, help="draws an image")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--batch_size", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()

    shape = (1, options.resolution, options.resolution)
    denoiser = Denoiser.build(
        shape, block_out_channels=(64, 128), space_to_depth=2, prediction_type="v_prediction"
    )
    normals = torch.rand(16, *shape, generator=torch.Generator().manual_seed(0))
    detector = DiffusionDetector.from_denoiser(denoiser, shape, autocast=True).fit(normals).to(options.device)
    smoothed = SmoothedDetector(
        detector, 0.5, "reference", n=options.n, batch_size=options.batch_size, device=options.device
    )
    images = normals[: options.images]
    batch = normals[:1].expand(options.batch_size, -1, -1, -1).contiguous().to(options.device)
    passes = options.images * -(-options.n // options.batch_size)

    def bare() -> None:
        with torch.no_grad():
            for _ in range(passes):
                detector.reconstruct(batch, 0.5)

    def certified() -> None:
        smoothed.noisy_scores(images, range(len(images)))

    bare(), certified()
    pairs = [(seconds(bare), seconds(certified)) for _ in range(options.repeats)]
    draws = passes * options.batch_size
    for name, times in zip(("bare forward", "certify"), zip(*pairs, strict=True), strict=True):
        print(
            f"{name:<14}{draws / statistics.median(times):10.0f} draws a second (median of {options.repeats})"
        )
    ratio = statistics.median(one / other for one, other in pairs)
    print(f"certify reaches {ratio:.3f} of the bare throughput (median of paired ratios)")


if __name__ == "__main__":
    main()
