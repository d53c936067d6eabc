"""What noisy scores cost in memory and on disk as images and draws grow: `python benchmarks/store_growth.py`.

Every row is a process of its own, with a score that costs next to nothing, drawn in mixed batches into a store and
read again by a second run. Peak memory is that of the whole process; the first row is nearly all PyTorch.
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
from certify.store import ScoreStore

SHAPE = (1, 4, 4)


def brightness(images: Tensor) -> Tensor:
    """A score that is nearly free."""
    return images.flatten(1).sum(1)


def measure(images: int, n: int) -> dict[str, float]:
    """Draw n scores of each image into a store, read them again; return bytes, peak memory and seconds."""
    torch.set_num_threads(1)
    pictures = torch.rand(images, *SHAPE, generator=torch.Generator().manual_seed(0))
    smoothed = SmoothedDetector(brightness, 0.25, "input", n=n, batch_size=1000)
    with tempfile.TemporaryDirectory() as folder:
        seconds = []
        for _ in range(2):
            start = time.perf_counter()
            store = ScoreStore(folder, smoothed.sampling_config())
            smoothed.bounds(pictures, range(images), [0.0, 0.25], store=store)
            seconds.append(time.perf_counter() - start)
            del store
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"bytes": size, "peak": peak, "draw": seconds[0], "again": seconds[1]}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--n", type=int, nargs="+", default=[1000, 10_000], help="draws an image")
    parser.add_argument("--row", action="store_true", help="measure one row and print it as JSON")
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measure(options.images[0], options.n[0])))
        return
    print("images       n   disk MB   bytes a draw   peak memory MB   seconds to draw   to read again")
    for images in options.images:
        for n in options.n:
            command = [sys.executable, __file__, "--row", "--images", str(images), "--n", str(n)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            print(
                f"{images:>6}  {n:>6}  {row['bytes'] / 1e6:>8.1f}  {row['bytes'] / images / n:>13.2f}  "
                f"{row['peak'] / 1e6:>15.0f}  {row['draw']:>16.1f}  {row['again']:>14.2f}"
            )


if __name__ == "__main__":
    main()
