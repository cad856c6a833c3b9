"""Metrics: accuracies, calibration, confusion, from probabilities to fractions."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multiclass_stat_scores,
)

CALIBRATION_BINS = 15


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Three accuracies of one set of predictions, each from 0 to 1.

    `top1` and `top5`: the share of rows whose label is the likeliest class, or among the five likeliest (all classes
    where there are fewer than five). `mean_class_accuracy`: top-1 within each class, averaged over the classes that
    occur among the labels.
    """

    top1: float
    top5: float
    mean_class_accuracy: float

    def to_json(self) -> dict[str, float]:
        """The three accuracies by their names."""
        return {"top1": self.top1, "top5": self.top5, "mean_class_accuracy": self.mean_class_accuracy}


def measure_accuracy(probabilities: Tensor, labels: Tensor) -> Accuracy:
    """Measure `probabilities` `[rows, K]`, K ≥ 2 and at least one row, against `labels` int64 `[rows]`."""
    num_classes = probabilities.shape[1]

    def top(k: int) -> float:
        counts = multiclass_stat_scores(probabilities, labels, num_classes, average="micro", top_k=min(k, num_classes))
        return int(counts[0]) / len(labels)

    # counts, since torchmetrics' own fractions are float32; and a class without a label has no accuracy, where its
    # own mean would hold one that is predicted to be 0
    recalls = [num_right / num_labels for num_right, num_labels in count_right(probabilities, labels) if num_labels]
    return Accuracy(top1=top(1), top5=top(5), mean_class_accuracy=sum(recalls) / len(recalls))


def count_right(probabilities: Tensor, labels: Tensor) -> list[tuple[int, int]]:
    """Count for each class the rows of that label whose likeliest class it is, and the rows of that label."""
    per_class = multiclass_stat_scores(probabilities, labels, probabilities.shape[1], average="none").tolist()
    return [(num_right, num_labels) for num_right, _, _, _, num_labels in per_class]


def measure_calibration(probabilities: Tensor, labels: Tensor) -> float:
    """Measure the expected calibration error, from 0 to 1: how far the likeliest class's probability is off.

    Rows fall by that probability into 15 bins of equal width; of each bin the difference between its mean probability
    and its top-1 counts by its share of rows. Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    num_classes = probabilities.shape[1]
    return float(multiclass_calibration_error(probabilities, labels, num_classes, n_bins=CALIBRATION_BINS, norm="l1"))


def count_confusions(probabilities: Tensor, labels: Tensor) -> NDArray[np.int64]:
    """Return int64 `[K, K]`: how many rows of the label (first index) were taken for the class (second index)."""
    matrix = multiclass_confusion_matrix(probabilities, labels, probabilities.shape[1])
    return matrix.cpu().numpy().astype(np.int64)


def average_rows(probabilities: Tensor, labels: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Average the rows of each video, or clip: probabilities `[groups, K]` and labels `[groups]`.

    `groups` int64 `[rows]` numbers what each row belongs to, from 0 and without gaps.
    """
    counts = torch.bincount(groups)
    sums = probabilities.new_zeros(len(counts), probabilities.shape[1]).index_add_(0, groups, probabilities)
    return sums / counts[:, None], labels.new_zeros(len(counts)).index_copy_(0, groups, labels)
