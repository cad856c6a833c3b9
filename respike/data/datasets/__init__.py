"""Datasets: how `prepare` finds the videos, classes and splits of each, one dataset or family a file."""

from respike.data.datasets import folder, hmdb51, kinetics, ucf101
from respike.data.datasets.common import Dataset, ListingRequest

# look a name up by `common.text.pick(DATASETS, name, "data set")`
DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        ucf101.UCF101,
        hmdb51.HMDB51,
        kinetics.KINETICS400,
        kinetics.KINETICS600,
        kinetics.KINETICS700,
        folder.FOLDER,
        folder.DEMO,
    )
}

__all__ = ["DATASETS", "Dataset", "ListingRequest"]
