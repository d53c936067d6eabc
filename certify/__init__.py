"""Robustness statements about any anomaly score."""
