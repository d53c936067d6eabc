"""What noisy scores cost in memory and on disk as images and draws grow: `python benchmarks/store_growth.py`.

Every row is two processes, with a score that costs next to nothing: one draws into a store and certifies, the other
reads the store and certifies. Peak memory is the larger of the two; in the first row it is nearly all PyTorch.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from certify import SmoothedDetector
from certify.files import write_json
from certify.store import ScoreStore
from diffad.manifest import git_state, hardware, now, versions

SHAPE = (1, 4, 4)


def brightness(images: Tensor) -> Tensor:
    """A score that is nearly free."""
    return images.flatten(1).sum(1)


def measure(images: int, n: int, folder: Path) -> dict[str, float]:
    """Draw n scores of each image into a store, or read them; return peak memory in bytes and seconds."""
    torch.set_num_threads(1)
    pictures = torch.rand(images, *SHAPE, generator=torch.Generator().manual_seed(0))
    smoothed = SmoothedDetector(brightness, 0.25, "input", n=n, batch_size=1000)
    start = time.perf_counter()
    store = ScoreStore(folder, {**smoothed.sampling_config(), "detector": "brightness"})
    smoothed.bounds(pictures, range(images), [0.0, 0.25], store=store)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"peak": peak, "seconds": seconds}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 10_000], help="draws an image")
    parser.add_argument("--folder", type=Path, help="measure one run in this folder and print it as JSON")
    parser.add_argument("--output", type=Path, help="JSON file")
    options = parser.parse_args()
    started, rows = now().isoformat(timespec="seconds"), []
    if options.folder is not None:
        print(json.dumps(measure(options.images[0], options.n[0], options.folder)))
        return
    print("images       n   disk MB   bytes a draw   peak memory MB   seconds to draw   to read again")
    for images in options.images:
        for n in options.n:
            with tempfile.TemporaryDirectory() as folder:
                words = [sys.executable, __file__, "--images", str(images), "--n", str(n), "--folder", folder]
                draw, again = (
                    json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
                    for _ in range(2)
                )
                size = sum(path.stat().st_size for path in Path(folder).iterdir())
            rows.append(
                {
                    "images": images,
                    "n": n,
                    "bytes": size,
                    "peak_bytes": max(draw["peak"], again["peak"]),
                    "seconds_to_draw": draw["seconds"],
                    "seconds_to_read": again["seconds"],
                }
            )
            print(
                f"{images:>6}  {n:>6}  {size / 1e6:>8.1f}  {size / images / n:>13.2f}  "
                f"{max(draw['peak'], again['peak']) / 1e6:>15.0f}  {draw['seconds']:>16.1f}  "
                f"{again['seconds']:>14.2f}"
            )
    if options.output is not None:
        about = {"git": git_state(), "versions": versions(), "hardware": hardware("cpu")}
        write_json(options.output, {"rows": rows, "started": started, **about})


if __name__ == "__main__":
    main()
