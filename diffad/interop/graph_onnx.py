"""A detector as an ONNX file, for programs that know neither diffad nor PyTorch.

export_onnx(detector, "score.onnx")       # then --detector onnx:score.onnx scores the same
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from certify.checks import InputError
from certify.files import write_atomic
from diffad.detector import Detector
from diffad.folder import one_line
from diffad.interop.extras import optional
from diffad.interop.graph import AGREEMENT, CHECKED, export
from diffad.interop.onnx import OnnxDetector

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT = "images", "score"


def export_onnx(detector: Detector, path: Path | str, *, batch: int | None = None) -> None:
    """Write the score of a fitted, differentiable detector as one ONNX file that holds its weights.

    The graph takes float32 `images` (batch, *image_shape) in [0, 1], which it does not check, and returns `score`
    (batch,), higher = more anomalous. It carries no gradient. The file is opened by onnxruntime on the CPU and compared
    with the detector on random images before it gets its name.

    Args:
        detector: fitted, with a gradient.
        path: of the file.
        batch: the number of images that the graph takes; None: any.

    Raises:
        InputError: as `diffad.interop.export`; for operations that ONNX or onnxruntime lacks; if file and detector
            differ by more than 1e-4 of the largest score.
    """
    for package in PACKAGES:
        optional(package, extra="interop")
    program = export(detector, batch=batch)
    write_atomic(Path(path), lambda target: _write(program, target, detector, batch))


def _write(program: torch.export.ExportedProgram, path: Path, detector: Detector, batch: int | None) -> None:
    found: Any = None
    try:
        with _quiet():
            found = torch.onnx.export(
                program, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False
            )
            found.save(str(path), external_data=False)
    except Exception as error:  # the exporter raises exceptions of many kinds
        raise InputError(
            f"export: {detector.name} cannot be written as ONNX ({type(error).__name__}: {_cause(error)})"
        ) from error
    _compare(path, detector, batch)


def _compare(path: Path, detector: Detector, batch: int | None) -> None:
    """Refuse a file whose scores are not the detector's."""
    shape = detector._require_fitted()
    count = max(CHECKED) if batch is None else batch
    images = torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))
    device = next((one.device for one in [*detector.buffers(), *detector.parameters()]), images.device)
    with torch.no_grad():
        wanted = detector.score(images.to(device)).double().cpu()
    difference = float((OnnxDetector(str(path)).fit(images).score(images).double() - wanted).abs().max())
    if not difference <= AGREEMENT * float(wanted.abs().max()):
        raise InputError(f"export: the ONNX file and {detector.name} differ by {difference:.3g}")


@contextlib.contextmanager
def _quiet() -> Any:
    """Keep to itself what the exporter prints and warns of: that names were changed, and its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _cause(error: Exception) -> str:
    """Return what lies behind an error of the exporter, whose own text says which step it was and how to report it."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return re.sub(r"\x1b\[\d*m", "", one_line(error))[:200]
