"""Data sets, four disjoint parts each: train, calibration, validation with synthetic defects, test."""

from diffad.data.load import DATASETS, load_data
from diffad.data.records import ImageSet, Record
from diffad.data.reuse import splits_kept
from diffad.data.sheet import contact_sheet
from diffad.data.split import DataSplit

__all__ = ["DATASETS", "DataSplit", "ImageSet", "Record", "contact_sheet", "load_data", "splits_kept"]
