"""What certification costs beyond the bare network: `python benchmarks/throughput.py`.

Both sides run in turn in one process, A B A B ..., on the same network, batch size and number of draws; the medians and
their ratio are printed. Absolute figures mean nothing on another machine, the ratio does. Beside wall time stands
processor time, which other work on the machine disturbs less: the ratio is of it on a CPU, and of wall time on a GPU.
`--output FILE.json` writes what was measured, with the floating-point operations of one draw.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from certify import SmoothedDetector
from certify.files import write_json
from diffad.diffusion.detector import DiffusionDetector
from diffad.diffusion.model import Denoiser
from diffad.manifest import git_state, hardware, now, versions


def seconds(task: Callable[[], object]) -> tuple[float, float]:
    """Wall time of one call, until a GPU has done its work too, and its processor time."""
    start, cpu = time.perf_counter(), time.process_time()
    task()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - start, time.process_time() - cpu


def operations(detector: DiffusionDetector, image: torch.Tensor) -> int:
    """Floating-point operations of one forward pass of one image, a multiplication and an addition being two."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        detector.reconstruct(image, 0.5)
    return int(counter.get_total_flops())


def main() -> None:
    """Time certify's sampling against forward passes of the same network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=16)
    parser.add_argument("--n", type=int, default=1000, help="draws an image")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--batch_size", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of PyTorch on a CPU; default: as it is")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    if options.threads is not None:
        torch.set_num_threads(options.threads)

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

    started, load = now().isoformat(timespec="seconds"), os.getloadavg()
    bare(), certified()
    pairs = [(seconds(bare), seconds(certified)) for _ in range(options.repeats)]
    draws = passes * options.batch_size
    rates = {}
    for name, times in zip(("bare", "certify"), zip(*pairs, strict=True), strict=True):
        wall, cpu = (draws / statistics.median(one) for one in zip(*times, strict=True))
        rates[name] = {"draws_per_second": wall, "draws_per_processor_second": cpu}
        print(
            f"{name:<9}{wall:10.0f} draws a second, {cpu:.0f} a second of processor time (median of {options.repeats})"
        )
    clock, which = ("processor", 1) if torch.device(options.device).type == "cpu" else ("wall", 0)
    ratio = statistics.median(one[which] / other[which] for one, other in pairs)
    print(f"certify reaches {ratio:.3f} of the bare throughput (median of paired ratios, {clock} time)")
    if options.output is not None:
        chosen = {name: value for name, value in vars(options).items() if name != "output"}
        found = {
            "rates": rates,
            "ratio": ratio,
            "parameters": sum(weight.numel() for weight in denoiser.parameters()),
            "operations_per_draw": operations(detector, batch[:1]),
        }
        about = {"git": git_state(), "versions": versions(), "hardware": hardware(options.device)}
        write_json(options.output, {**found, "options": chosen, "started": started, "load": load, **about})


if __name__ == "__main__":
    main()
