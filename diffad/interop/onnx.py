"""An ONNX file as a detector, run by onnxruntime: a black box.

detector = OnnxDetector("score.onnx").fit(normals)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from certify.checks import InputError, check_choice
from certify.types import FloatArray
from diffad.folder import one_line
from diffad.interop.extras import optional
from diffad.interop.foreign import ForeignDetector

OPTIONS = ("output", "negate")
BESIDE = "session.model_external_initializers_file_folder_path"  # where onnxruntime looks for weights beside a graph


class OnnxDetector(ForeignDetector):
    """The score that an ONNX graph computes from images (b, c, h, w) in [0, 1], float32; nothing is fitted.

    The file itself is kept in the detector's folder, so that the folder is whole. It runs on the CPU, without gradient.
    A graph with a fixed batch is given full batches, the last one padded.

    Args:
        what: the file.
        options: `output`, the name of the output that holds the scores, of several; `negate`, for a score that is
            higher for normal images.
    """

    name: ClassVar[str] = "onnx"
    graph: Tensor

    def __init__(self, what: str = "", options: Mapping[str, Any] | None = None) -> None:
        super().__init__(what, options)
        unknown = sorted(set(self.options) - set(OPTIONS))
        if unknown:
            raise InputError(f"{self._title}: unknown options {unknown}, allowed are {', '.join(OPTIONS)}")
        self.has_gradient = False
        self._session: Any = None
        self.register_buffer("graph", torch.empty(0, dtype=torch.uint8))

    def config(self) -> dict[str, Any]:
        """Constructor arguments; of the file its name alone, since the folder holds it."""
        return {"what": Path(self.what).name, "options": self.options}

    @property
    def score_name(self) -> str:
        """The file's name, with the output if one was chosen."""
        output = self.options.get("output")
        return Path(self.what).stem + ("" if output is None else f".{output}")

    def _prepare(self, train: Tensor, seed: int) -> None:
        path = Path(self.what)
        if not path.is_file():
            raise InputError(f"onnx: {self.what!r} is no file; name one, as in --detector onnx:score.onnx")
        self.graph = torch.from_numpy(np.frombuffer(path.read_bytes(), dtype=np.uint8).copy())
        self._open()

    def _restore(self, directory: Path) -> None:
        self._open()

    def _open(self) -> None:
        """Start a session on as many threads as PyTorch uses."""
        runtime = optional("onnxruntime", extra="interop")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        with TemporaryDirectory() as nothing:
            # weights beside the graph would be read from wherever we are, and be no part of what is saved
            options.add_session_config_entry(BESIDE, nothing)
            self._start(runtime, options)
        self._check_ends()

    def _start(self, runtime: Any, options: Any) -> None:
        try:
            self._session = runtime.InferenceSession(
                self.graph.cpu().numpy().tobytes(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions share no base of their own
            if "xternal" in str(error):
                raise InputError(
                    f"{self._title}: keeps weights in a file beside it; write it as one file, in torch.onnx.export by "
                    "external_data=False"
                ) from error
            raise InputError(f"{self._title}: onnxruntime cannot read it ({one_line(error)})") from error

    def _check_ends(self) -> None:
        """Refuse inputs and outputs that are not images and one choice of scores."""
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or len(inputs[0].shape) != 4:
            found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
            raise InputError(f"{self._title}: takes {found}; need one float32 input (batch, c, h, w)")
        fixed = inputs[0].shape[1:]
        shape = self._require_fitted()
        if any(isinstance(want, int) and want != side for want, side in zip(fixed, shape, strict=True)):
            raise InputError(f"{self._title}: takes images {tuple(fixed)}, got {shape}; set --resolution")
        outputs = [one.name for one in self._session.get_outputs()]
        if "output" in self.options:
            check_choice(str(self.options["output"]), outputs, f"{self._title}, output")
        elif len(outputs) > 1:
            raise InputError(f"{self._title}: has outputs {', '.join(outputs)}; choose one, output=NAME")

    def _foreign(self, images: Tensor) -> FloatArray:
        if self._session is None:
            raise InputError(f"{self._title}: is not open; call fit(normal images) or load a folder")
        source = self._session.get_inputs()[0]
        output = str(self.options.get("output", self._session.get_outputs()[0].name))
        pixels = np.ascontiguousarray(images.cpu().numpy(), dtype=np.float32)
        size = source.shape[0] if isinstance(source.shape[0], int) else len(pixels)
        found = []
        for start in range(0, len(pixels), size):
            batch = pixels[start : start + size]
            padded = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch), axis=0)])
            (scores,) = self._session.run([output], {source.name: padded})
            found.append(np.asarray(scores, dtype=np.float64)[: len(batch)])
        scores = np.concatenate(found)
        return -scores if self.options.get("negate") else scores
