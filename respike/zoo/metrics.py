"""Metrics: accuracy, calibration and confusion of predicted probabilities.

Shapes: `V` rows (views, clips or videos), `K` classes. Probabilities are `[V, K]`, labels int64 `[V]`.
"""

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
    """Three accuracies, each from 0 to 1.

    - `top1`, `top5`: the share of rows whose label is the most probable class, or among the five most probable (all
      classes if there are fewer).
    - `mean_class_accuracy`: top-1 of each class, averaged over the classes that occur among the labels.
    """

    top1: float
    top5: float
    mean_class_accuracy: float


def measure_accuracy(probabilities: Tensor, labels: Tensor) -> Accuracy:
    """Return the accuracies of at least one row, with `K` ≥ 2."""
    num_classes = probabilities.shape[1]

    def top(k: int) -> float:
        counts = multiclass_stat_scores(probabilities, labels, num_classes, average="micro", top_k=min(k, num_classes))
        return int(counts[0]) / len(labels)

    # From counts: torchmetrics' own fractions are float32, and its mean counts a class that is predicted but is never
    # a label as 0.
    recalls = [
        num_correct / num_labels for num_correct, num_labels in count_correct(probabilities, labels) if num_labels
    ]
    return Accuracy(top1=top(1), top5=top(5), mean_class_accuracy=sum(recalls) / len(recalls))


def count_correct(probabilities: Tensor, labels: Tensor) -> list[tuple[int, int]]:
    """Return for each class the number of its rows that were predicted correctly, and the number of its rows."""
    per_class = multiclass_stat_scores(probabilities, labels, probabilities.shape[1], average="none").tolist()
    return [(num_correct, num_labels) for num_correct, _, _, _, num_labels in per_class]


def measure_calibration(probabilities: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error, from 0 to 1: how far the confidence is from the accuracy.

    Rows are sorted by the probability of their most probable class into 15 bins of equal width. The error is the
    difference between mean probability and top-1 of each bin, weighted by its share of the rows.
    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    num_classes = probabilities.shape[1]
    # torchmetrics would put a probability of exactly 1 into a bin of its own, beyond the last
    below_one = torch.nextafter(probabilities.new_tensor(1.0), probabilities.new_tensor(0.0))
    probabilities = probabilities.clamp_max(below_one)
    return float(multiclass_calibration_error(probabilities, labels, num_classes, n_bins=CALIBRATION_BINS, norm="l1"))


def count_confusions(probabilities: Tensor, labels: Tensor) -> NDArray[np.int64]:
    """Return int64 `[K, K]`: the number of rows of a label (first index) predicted as a class (second index)."""
    matrix = multiclass_confusion_matrix(probabilities, labels, probabilities.shape[1])
    return matrix.cpu().numpy().astype(np.int64)


def average_rows(probabilities: Tensor, labels: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean probabilities `[G, K]` and the labels `[G]` of `G` groups of rows, such as clips or videos.

    `groups` int64 `[V]` is the group of each row, numbered from 0 without gaps.
    """
    counts = torch.bincount(groups)
    sums = probabilities.new_zeros(len(counts), probabilities.shape[1]).index_add_(0, groups, probabilities)
    return sums / counts[:, None], labels.new_zeros(len(counts)).index_copy_(0, groups, labels)
