"""`diffad export`: write the score of a fitted detector as one ONNX file or one graph of torch.export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from certify import console
from certify.checks import InputError
from diffad.interop.graph import export as export_graph
from diffad.interop.graph_onnx import export_onnx
from diffad.precision import exact_float32
from diffad.registry import load_detector

WRITERS: dict[str, Callable[..., Any]] = {".onnx": export_onnx, ".pt2": export_graph}


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write the score of a fitted, differentiable detector for programs that know nothing of diffad.

    The file takes float32 images (batch, channel, height, width) in [0, 1] and returns scores, higher = more anomalous;
    it is compared with the detector before it gets its name (1e-4).
    """

    detector: Annotated[str, tyro.conf.Positional]
    """Folder of the detector."""
    out: Annotated[str, tyro.conf.Positional]
    """File to write: .onnx, or .pt2 for torch.export.load."""
    batch: int | None = None
    """Images that the graph takes at a time; None: any number, which not every detector can be written for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""

    def command() -> None:
        export(tyro.cli(ExportConfig, prog="diffad export", args=argv, use_underscores=True))

    return console.run(command)


@exact_float32()
def export(config: ExportConfig) -> None:
    """Write the file and print its name."""
    suffix = Path(config.out).suffix
    if suffix not in WRITERS:
        raise InputError(f"out: got {config.out!r}, need a file that ends in {' or '.join(WRITERS)}")
    WRITERS[suffix](load_detector(config.detector), config.out, batch=config.batch)
    print(config.out)
