"""Image anomaly detectors, attacks on their scores, and results."""

from diffad.detector import Detector
from diffad.registry import DETECTORS, detector_class, load_detector

__all__ = ["DETECTORS", "Detector", "detector_class", "load_detector"]
