"""Data sets, four disjoint parts each: train, calibration, validation with synthetic defects, test."""

from diffad.data.load import load_data
from diffad.data.records import ImageSet, Record
from diffad.data.split import DataSplit

__all__ = ["DataSplit", "ImageSet", "Record", "load_data"]
