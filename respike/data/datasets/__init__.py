"""Datasets: the layouts that `respike prepare` reads, one file each."""

# each import adds its layouts to DATASETS
from respike.data.datasets import folder, hmdb51, kinetics, ucf101  # noqa: F401
from respike.data.datasets.common import DATASETS, Dataset, ListingRequest

__all__ = ["DATASETS", "Dataset", "ListingRequest"]
