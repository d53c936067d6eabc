"""Image anomaly detectors, attacks on their scores, and results."""
