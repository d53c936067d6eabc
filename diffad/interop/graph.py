"""A detector as one graph of tensor operations, for programs that know nothing of diffad.

program = export(detector, "score.pt2")
scores = torch.export.load("score.pt2").module()(images)     # any number of images
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from certify.checks import InputError
from certify.files import write_atomic
from diffad.detector import Detector
from diffad.folder import one_line

AGREEMENT = 1e-4  # relative to the largest score
TRACED = 4  # images of the trace
CHECKED = (1, 3, 7)  # images of the batches on which a graph for any number is compared


class _Score(nn.Module):
    """The score alone: what is checked of images cannot be part of a graph."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = copy.deepcopy(detector)
        for tensor in [*self.parameters(), *self.buffers()]:
            tensor.data = tensor.data.contiguous()  # torch.export.save warns of others

    def forward(self, images: Tensor) -> Tensor:
        return self.detector.score_noisy(images)


def export(
    detector: Detector, path: Path | str | None = None, *, batch: int | None = None
) -> torch.export.ExportedProgram:
    """Return the score of a fitted, differentiable detector by `torch.export`, and write it to a file if one is named.

    The program takes float32 images (batch, *image_shape) in [0, 1], which it does not check, on the device of the
    detector, and returns scores (batch,), higher = more anomalous, with gradients. Noise that a detector stored is a
    constant of it. It is compared with the detector on random images before it is returned.

    Args:
        detector: fitted, with a gradient.
        path: of a .pt2 file for `torch.export.load`.
        batch: the number of images that the graph takes; None: any. What is computed in chunks of images needs a fixed
            number, and some detectors are no graph at all.

    Raises:
        InputError: if the detector is not fitted, is a black box, or cannot be written as a graph for any batch; if
            graph and detector differ by more than 1e-4 of the largest score.
    """
    if detector.image_shape is None:
        raise InputError(f"export: {detector.name} is not fitted; call fit(normal images) or load a folder")
    if not detector.has_gradient:
        raise InputError(
            f"export: {detector.name} is a black box, whose score is no graph of tensor operations"
        )
    if batch is not None and batch < 1:
        raise InputError(f"export: got batch = {batch}, need at least 1, or None for any number of images")
    device = next((one.device for one in [*detector.buffers(), *detector.parameters()]), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    counts = CHECKED if batch is None else (batch,)
    images = torch.rand(max(counts), *detector.image_shape, generator=generator).to(device)
    shapes = {"images": {0: torch.export.Dim("batch")}} if batch is None else None
    with torch.no_grad():
        detector.score(images[:1])  # what is drawn at the first image becomes a constant of the graph
    try:
        program = torch.export.export(
            _Score(detector).eval(),
            (images[: TRACED if batch is None else batch],),
            dynamic_shapes=shapes,
            strict=False,
        )
    except Exception as error:  # torch.export raises exceptions of many kinds
        raise InputError(
            f"export: {detector.name} cannot be written as one graph for {batch or 'any number of'} images "
            f"({type(error).__name__}: {one_line(error)}){'; try batch=1' if batch is None else ''}"
        ) from error
    _compare(program, detector, images, counts)
    if path is not None:
        write_atomic(Path(path), lambda target: _save(program, target))
    return program


def _compare(
    program: torch.export.ExportedProgram, detector: Detector, images: Tensor, counts: tuple[int, ...]
) -> None:
    """Refuse a graph whose scores are not the detector's; a loop over chunks may have been unrolled for one size."""
    module = program.module()
    with torch.no_grad():
        for count in counts:
            wanted = detector.score(images[:count]).double()
            try:
                found = module(images[:count]).double()
            except Exception as error:  # a size that the graph does not take
                raise InputError(
                    f"export: the graph of {detector.name} does not take {count} images ({one_line(error)})"
                ) from error
            difference = float((found - wanted).abs().max())
            if not difference <= AGREEMENT * float(wanted.abs().max()):
                raise InputError(
                    f"export: graph and {detector.name} differ by {difference:.3g} on {count} images"
                )


def _save(program: torch.export.ExportedProgram, path: Path) -> None:
    with path.open("wb") as file:
        torch.export.save(program, file)
