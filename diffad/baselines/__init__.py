"""Detectors without a network: the rows that every table of certificates has to beat."""
