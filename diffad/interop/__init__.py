"""Detectors that other people wrote, under the contract of ours: scored, attacked and certified alike.

Names are looked up when they are used, so that reading a name on the command line imports no adapter.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffad.interop.anomalib import AnomalibDetector
    from diffad.interop.callables import CallableDetector, as_detector
    from diffad.interop.estimator import as_sklearn
    from diffad.interop.graph import export
    from diffad.interop.graph_onnx import export_onnx
    from diffad.interop.onnx import OnnxDetector
    from diffad.interop.outliers import PyODDetector, SklearnDetector
    from diffad.interop.pytorch_ood import PytorchOODDetector

__all__ = [
    "AnomalibDetector",
    "CallableDetector",
    "OnnxDetector",
    "PyODDetector",
    "PytorchOODDetector",
    "SklearnDetector",
    "as_detector",
    "as_sklearn",
    "export",
    "export_onnx",
]

_MODULES = {
    "AnomalibDetector": "anomalib",
    "CallableDetector": "callables",
    "OnnxDetector": "onnx",
    "PyODDetector": "outliers",
    "PytorchOODDetector": "pytorch_ood",
    "SklearnDetector": "outliers",
    "as_detector": "callables",
    "as_sklearn": "estimator",
    "export": "graph",
    "export_onnx": "graph_onnx",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
