"""Pictures of curves and confusion, looked at through their pixels."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from respike.workflows.plots import draw_confusion, draw_curves
from respike.zoo.history import EpochRecord

BAND, DEEPEST = "#f6d9d2", "#cae11f"


def _records(*, is_validated: bool, rates: tuple[float, ...] = ()) -> list[EpochRecord]:
    names = [f"snn.stages.{place}.blocks.0.lif1" for place in range(len(rates))]
    return [
        EpochRecord(
            epoch=epoch,
            train_loss=2 / epoch,
            train_accuracy=0.2 * epoch,
            learning_rate=0.1,
            seconds=1.0,
            clips_per_second=1.0,
            validation={"top1": 0.15 * epoch, "loss": 2.5 / epoch} if is_validated else {},
            firing_rates=dict(zip(names, rates, strict=True)),
        )
        for epoch in (1, 2, 3)
    ]


def _count(path: Path, color: str) -> int:
    """How many pixels are about the colour `#rrggbb`."""
    wanted = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return int((np.abs(imread(path)[..., :3] - wanted).max(axis=-1) < 0.02).sum())


@pytest.mark.parametrize("is_validated", [True, False])
def test_curves_show_training_and_validation_where_there_is_one(tmp_path: Path, is_validated: bool) -> None:
    draw_curves(_records(is_validated=is_validated), tmp_path / "curves.png")
    assert _count(tmp_path / "curves.png", "#3b6ea5") > 200
    assert (_count(tmp_path / "curves.png", "#c8553d") > 200) is is_validated


@pytest.mark.parametrize("rates", [(), (0.0, 0.3), (0.3, 1.0), (0.2,) * 60])
def test_curves_show_the_firing_rate_of_each_spiking_layer_where_there_are_such(
    tmp_path: Path, rates: tuple[float, ...]
) -> None:
    draw_curves(_records(is_validated=True, rates=rates), tmp_path / "curves.png")
    assert (_count(tmp_path / "curves.png", BAND) > 5000) is bool(rates)
    assert (_count(tmp_path / "curves.png", DEEPEST) > 200) is bool(rates)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_dead_or_saturated_layer_lies_in_a_band(tmp_path: Path, rate: float) -> None:
    lines = {}
    for name, shown in (("sound", 0.3), ("silent", rate)):
        path = tmp_path / f"{name}.png"
        draw_curves(_records(is_validated=False, rates=(0.3, shown)), path)
        lines[name] = _count(path, BAND)
    # its line covers some of the band
    assert lines["silent"] < lines["sound"] - 200


def test_confusion_darkens_where_the_clips_are(tmp_path: Path) -> None:
    names = ["cost $5 or $6", "b", "c"]
    draw_confusion(np.diag([5, 5, 5]), names, tmp_path / "right.png")
    draw_confusion(np.zeros((3, 3), dtype=np.int64), names, tmp_path / "empty.png")
    darkest = "#08306b"  # the end of the scale, which the colour bar shows in either
    assert _count(tmp_path / "right.png", darkest) > 5 * _count(tmp_path / "empty.png", darkest)


def test_many_classes_still_make_a_picture_of_a_bounded_size(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(400)]
    draw_confusion(np.eye(400, dtype=np.int64), names, tmp_path / "many.png")
    assert max(imread(tmp_path / "many.png").shape) <= 2500
