"""Metrics, compared with counts made by hand."""

import pytest
import torch
from respike.zoo.metrics import average_rows, count_confusions, count_correct, measure_accuracy, measure_calibration


def _rows(*orders: list[int], num_classes: int = 7) -> torch.Tensor:
    """Probabilities whose classes are listed from the most probable on."""
    rows = torch.zeros(len(orders), num_classes)
    for row, order in enumerate(orders):
        for place, label in enumerate(order):
            rows[row, label] = 0.5**place
    return rows / rows.sum(dim=1, keepdim=True)


def test_top1_and_top5_count_the_most_probable_classes() -> None:
    rows = _rows([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5])
    accuracy = measure_accuracy(rows, torch.tensor([0, 4, 5, 6]))
    assert accuracy.top1 == pytest.approx(0.25)
    assert accuracy.top5 == pytest.approx(0.5)


def test_mean_class_accuracy_weights_classes_equally() -> None:
    rows = _rows([0], [0], [0], [0])
    accuracy = measure_accuracy(rows, torch.tensor([0, 0, 0, 1]))
    assert accuracy.top1 == pytest.approx(0.75)
    assert accuracy.mean_class_accuracy == pytest.approx(0.5)


def test_mean_class_accuracy_ignores_classes_without_a_label() -> None:
    accuracy = measure_accuracy(_rows([0], [2]), torch.tensor([0, 0]))
    assert accuracy.mean_class_accuracy == pytest.approx(0.5)


def test_top5_of_three_classes_is_always_1() -> None:
    accuracy = measure_accuracy(_rows([0], [0], num_classes=3), torch.tensor([1, 2]))
    assert (accuracy.top1, accuracy.top5) == (0, 1)


def test_confusion_has_labels_first() -> None:
    matrix = count_confusions(_rows([1], [1], [2], num_classes=3), torch.tensor([0, 0, 2]))
    assert matrix.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]


def test_a_video_is_the_mean_of_its_clips() -> None:
    rows = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]])
    means, labels = average_rows(rows, torch.tensor([0, 1, 0]), torch.tensor([0, 1, 0]))
    assert torch.allclose(means, torch.tensor([[0.65, 0.35], [0.2, 0.8]]))
    assert labels.tolist() == [0, 1]


def test_correct_rows_are_counted_for_each_class() -> None:
    counts = count_correct(_rows([0], [1], [0], num_classes=3), torch.tensor([0, 0, 1]))
    assert counts == [(1, 2), (0, 1), (0, 0)]


def test_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    # three rows at 0.9, two of them correct; one at 0.6, correct: two bins
    rows = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    error = measure_calibration(rows, torch.tensor([0, 0, 1, 1]))
    assert error == pytest.approx(0.75 * (0.9 - 2 / 3) + 0.25 * (1 - 0.6), abs=1e-6)


def test_a_probability_of_exactly_1_is_in_the_last_of_15_bins() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.96, 0.04]])
    # one bin: mean probability 0.98, half of the rows correct; in two bins it would be 0.5 + 0.02
    assert measure_calibration(rows, torch.tensor([1, 0])) == pytest.approx(0.98 - 0.5, abs=1e-6)


def test_a_calibrated_network_has_no_calibration_error() -> None:
    rows = torch.tensor([[0.75, 0.25]] * 4)
    assert measure_calibration(rows, torch.tensor([0, 0, 0, 1])) == pytest.approx(0, abs=1e-6)
