"""Detectors that other people wrote, under the contract of ours: scored, attacked and certified alike."""

from diffad.interop.anomalib import AnomalibDetector
from diffad.interop.as_sklearn import as_sklearn
from diffad.interop.callables import CallableDetector, as_detector
from diffad.interop.onnx import OnnxDetector
from diffad.interop.outliers import PyODDetector, SklearnDetector

__all__ = [
    "AnomalibDetector",
    "CallableDetector",
    "OnnxDetector",
    "PyODDetector",
    "SklearnDetector",
    "as_detector",
    "as_sklearn",
]
