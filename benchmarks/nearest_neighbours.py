"""Our exact nearest-neighbour search against faiss's flat index: `python benchmarks/nearest_neighbours.py`.

faiss-cpu is optional (`pip install 'diffad[faiss]'`): without it see the growth with the bank alone. Both sides search
the same queries in turn, A B A B ..., with equal threads; the answers are compared with scikit-learn's in double
precision. Peak memory is that of a process of its own, in which the bank is the only thing that grows. Beside wall time
stands processor time, which other work on the machine disturbs less; the load of the machine is recorded. `--output
FILE.json` writes FILE.md with the tables too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from certify.files import write_json, write_text
from diffad.fast_neighbours import nearest_verified
from diffad.manifest import git_state, hardware, now, versions


def points(count: int, dims: int, seed: int) -> torch.Tensor:
    """Random features."""
    return torch.randn(count, dims, generator=torch.Generator().manual_seed(seed))


def seconds(task: Callable[[], object]) -> tuple[float, float]:
    """Wall time and processor time of one call."""
    start, cpu = time.perf_counter(), time.process_time()
    task()
    return time.perf_counter() - start, time.process_time() - cpu


def against_faiss(
    bank: torch.Tensor, queries: torch.Tensor, k: int, options: argparse.Namespace
) -> dict[str, Any]:
    """Paired times, and the largest error of our distances."""
    import faiss

    faiss.omp_set_num_threads(options.threads)
    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank.numpy())
    ours, theirs = (lambda: nearest_verified(queries, bank, k)), (lambda: index.search(queries.numpy(), k))
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(options.repeats)]
    few = queries[:64]
    exact = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(bank.double().numpy())
    expected = exact.kneighbors(few.double().numpy())[0]
    theirs_distances = np.sqrt(index.search(few.numpy(), k)[0].astype(np.float64))
    ratios = sorted(one[0] / other[0] for one, other in pairs)
    return {
        "k": k,
        "queries_per_second": len(queries) / statistics.median(one[0] for one, _ in pairs),
        "faiss_queries_per_second": len(queries) / statistics.median(other[0] for _, other in pairs),
        "time_over_faiss": statistics.median(ratios),
        "time_over_faiss_quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
        "cpu_time_over_faiss": statistics.median(one[1] / other[1] for one, other in pairs),
        "load": os.getloadavg(),
        "error": float(np.abs(nearest_verified(few, bank, k)[0].numpy() - expected).max()),
        "faiss_error": float(np.abs(theirs_distances - expected).max()),
    }


def growth(options: argparse.Namespace) -> list[dict[str, float]]:
    """Time and peak memory beside bank and queries, each bank in a process of its own."""
    rows = []
    for size in options.banks:
        words = [sys.executable, __file__, "--one_bank", str(size), "--queries", str(options.queries)]
        words += ["--dims", str(options.dims), "--threads", str(options.threads), "--repeats", "5"]
        found = subprocess.run(words, check=True, capture_output=True, text=True)
        rows.append(json.loads(found.stdout))
    return rows


def one_bank(options: argparse.Namespace) -> dict[str, float]:
    """Search one bank, and measure the peak memory of the whole process."""
    bank, queries = points(options.one_bank, options.dims, 0), points(options.queries, options.dims, 1)
    times = [seconds(lambda: nearest_verified(queries, bank, 2)) for _ in range(options.repeats)]
    return {
        "bank": options.one_bank,
        "seconds": statistics.median(wall for wall, _ in times),
        "cpu_seconds": statistics.median(cpu for _, cpu in times),
        "bank_megabytes": bank.nbytes / 2**20,
        "peak_megabytes": peak_memory() / 2**20,
    }


def peak_memory() -> int:
    """Largest resident memory of this process in bytes; on Linux `ru_maxrss` would include that of its parent."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def tables(found: dict[str, Any], options: argparse.Namespace) -> str:
    """The two tables as Markdown."""
    lines = [
        f"# Nearest neighbours: {options.queries} queries, {options.dims} dimensions, {options.threads} threads",
        "",
        f"Written by `benchmarks/nearest_neighbours.py` on {found['hardware']['cpu']}. Ratios are medians of "
        f"{options.repeats} pairs in turn, quartiles in brackets; processor time is that of all threads.",
        "",
    ]
    if found["faiss"]:
        lines += [
            f"Bank of {options.bank}, against faiss's flat index:",
            "",
            "| k | queries a second | faiss | time over faiss | processor time over faiss | error | of faiss | load |",
            "|---|---|---|---|---|---|---|---|",
        ]
    for row in found["faiss"]:
        low, high = row["time_over_faiss_quartiles"]
        lines.append(
            f"| {row['k']} | {row['queries_per_second']:.0f} | {row['faiss_queries_per_second']:.0f} | "
            f"{row['time_over_faiss']:.2f} ({low:.2f} to {high:.2f}) | {row['cpu_time_over_faiss']:.2f} | "
            f"{row['error']:.0e} | {row['faiss_error']:.0e} | {row['load'][0]:.1f} |"
        )
    lines += [
        "",
        "Growth with the bank, k = 2, each bank in a process of its own:",
        "",
        "| bank | wall time, us a bank point | processor time, us | peak memory, MB | of it the bank, MB |",
        "|---|---|---|---|---|",
    ]
    for row in found["growth"]:
        wall, cpu = (row[name] / row["bank"] * 1e6 for name in ("seconds", "cpu_seconds"))
        lines.append(
            f"| {row['bank']} | {wall:.1f} | {cpu:.1f} | {row['peak_megabytes']:.0f} | {row['bank_megabytes']:.0f} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Print both tables; with --output write them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bank", type=int, default=50_000)
    parser.add_argument("--banks", type=int, nargs="+", default=[12_500, 25_000, 50_000, 100_000])
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--queries", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one_bank", type=int, help="search one bank of this size and print JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.one_bank is not None:
        print(json.dumps(one_bank(options)))
        return
    found: dict[str, Any] = {"git": git_state(), "versions": versions(), "hardware": hardware()}
    found |= {
        "started": now().isoformat(timespec="seconds"),
        "load": os.getloadavg(),
        "faiss": [],
        "growth": [],
    }
    found["options"] = {name: value for name, value in vars(options).items() if name != "output"}
    if find_spec("faiss") is None:
        print("faiss is not installed: no comparison (see --help)")
    else:
        bank, queries = points(options.bank, options.dims, 0), points(options.queries, options.dims, 1)
        found["faiss"] = [against_faiss(bank, queries, k, options) for k in (1, 2, 10)]
    found["growth"] = growth(options)
    text = tables(found, options)
    print(text)
    if options.output is not None:
        write_json(options.output, found)
        write_text(options.output.with_suffix(".md"), text)


if __name__ == "__main__":
    main()
