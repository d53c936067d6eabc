"""The experiments of the papers behind this toolkit: `python -m paper_repro PAPER --preset smoke|cpu|paper`."""
