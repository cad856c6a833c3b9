"""Charts of training, confusion, energy and ablations: what they show, looked at through figures and pixels."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from respike.workflows.ablation_grid import GridPoint, Summary
from respike.workflows.energy import EnergyComparison
from respike.workflows.plots import (
    draw_accuracy,
    draw_accuracy_by_energy,
    draw_accuracy_by_stride,
    draw_confusion,
    draw_curves,
    draw_energy,
    figure_png,
    save_figure,
    shorten,
)
from respike.zoo.energy import EnergyReport, LayerEnergy
from respike.zoo.history import EpochRecord
from respike.zoo.models import parse_fusion

BAND, BRIGHTEST_LAYER = "#f6d9d2", "#cae11f"
JAPANESE, LONG = "日本の踊り", "a very long class name " * 9


def pixels_of(figure: Figure) -> np.ndarray:
    """The picture of a figure, [H, W, 3] from 0 to 1; a warning while it is drawn is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return imread(io.BytesIO(figure_png(figure)))[..., :3]


def count(pixels: np.ndarray, color: str) -> int:
    """How many pixels have about the color `#rrggbb`."""
    wanted = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    return int((np.abs(pixels - wanted).max(axis=-1) < 0.02).sum())


def test_a_saved_figure_is_a_png_of_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.png", "other.png"):
        save_figure(draw_confusion(np.eye(2, dtype=np.int64), ["a", "b"]), tmp_path / name)
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "other.png").read_bytes()


def test_long_names_keep_their_beginning_and_end() -> None:
    assert shorten("0123456789", 10) == "0123456789"
    assert shorten("0123456789x", 7) == "012…89x"


def records(*, is_validated: bool, rates: tuple[float, ...] = ()) -> list[EpochRecord]:
    names = [f"snn.stages.{stage}.blocks.0.lif1" for stage in range(len(rates))]
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


@pytest.mark.parametrize("is_validated", [True, False])
def test_curves_show_training_and_validation_if_any(is_validated: bool) -> None:
    pixels = pixels_of(draw_curves(records(is_validated=is_validated)))
    assert count(pixels, "#3b6ea5") > 200
    assert (count(pixels, "#c8553d") > 200) is is_validated


@pytest.mark.parametrize("rates", [(), (0.0, 0.3, 1.0), (0.2,) * 60])
def test_curves_show_firing_rates_of_spiking_layers(rates: tuple[float, ...]) -> None:
    pixels = pixels_of(draw_curves(records(is_validated=True, rates=rates)))
    assert (count(pixels, BAND) > 5000) is bool(rates)
    assert (count(pixels, BRIGHTEST_LAYER) > 200) is bool(rates)


def test_dead_and_saturated_layers_are_drawn_in_a_band() -> None:
    healthy, dead, saturated = (
        count(pixels_of(draw_curves(records(is_validated=False, rates=(0.3, rate)))), BAND) for rate in (0.3, 0.0, 1.0)
    )
    # the line covers a part of the band
    assert max(dead, saturated) < healthy - 200


def test_confusion_is_dark_where_the_clips_are() -> None:
    names = ["cost $5 or $6", "b", "c"]
    right, empty = (draw_confusion(matrix, names) for matrix in (np.diag([5, 5, 5]), np.zeros((3, 3), dtype=np.int64)))
    darkest = "#08306b"  # the color bar shows it in both
    assert count(pixels_of(right), darkest) > 5 * count(pixels_of(empty), darkest)


@pytest.mark.parametrize("num_classes", [60, 400])
def test_confusion_of_many_classes_is_of_a_bounded_size(num_classes: int) -> None:
    names = [f"{number} {LONG}" for number in range(num_classes)]
    assert max(pixels_of(draw_confusion(np.eye(num_classes, dtype=np.int64), names)).shape) <= 2500


@pytest.mark.parametrize("names", [[JAPANESE, "b"], [LONG, "b"], [LONG, JAPANESE, "$x"]])
def test_any_class_name_leaves_the_confusion_most_of_the_picture(names: list[str]) -> None:
    figure = draw_confusion(np.eye(len(names), dtype=np.int64), names)
    pixels_of(figure)
    place = figure.axes[0].get_position()
    assert place.width > 0.5
    assert place.height > 0.5


@pytest.mark.parametrize("title", [JAPANESE, LONG, f"runs/{LONG}/{JAPANESE}"])
def test_any_network_name_leaves_the_energy_most_of_the_picture(title: str) -> None:
    layers = tuple(
        LayerEnergy(name=f"{branch}.x", branch=branch, macs=1e9, acs=0.0, input_rate=None) for branch in ("ANN", "SNN")
    )
    comparison = EnergyComparison(
        title=title,
        report=EnergyReport(layers=layers, stem_event_density=None),
        clips=f"3 clips of test of {title}",
        image_size=224,
        num_frames=16,
        num_keys=4,
        baselines=(),
        remarks=(),
    )
    figure = draw_energy(comparison)
    pixels_of(figure)
    assert figure.axes[0].get_position().width > 0.5
    assert [bar.get_width() for bar in figure.axes[0].patches[2:]] == pytest.approx([4.6, 18.4])


def summary(values: list[float], *, stride: int = 4, fusion: str = "default", branches: str = "hybrid") -> Summary:
    mean = sum(values) / len(values)
    return Summary(
        point=GridPoint(stride=stride, threshold=8, branches=branches, fusion=parse_fusion(fusion)),
        num_seeds=len(values),
        values={"clip_top1": values, "video_top1": [0.0] * len(values)},
        means={"clip_top1": mean, "video_top1": 0.0},
        deviations={"clip_top1": 0.1 if len(values) > 1 else None, "video_top1": None},
        energy_joules=4e-3 / stride,
        sparse_energy_joules=1e-3,
        event_density=0.1,
        num_parameters=7,
    )


def test_accuracy_shows_each_seed_as_a_dot_in_a_row() -> None:
    rows = [summary([0.4, 0.6, 0.8]), summary([0.3], branches="ann")]
    (axes,) = draw_accuracy(rows, "clip_top1").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["hybrid", "ann"]
    dots = [tuple(offset) for scatter in axes.collections for offset in scatter.get_offsets().tolist()]
    assert {(0.4, 0), (0.6, 0), (0.8, 0), (0.3, 1)} <= set(dots)
    assert [round(bar.get_width(), 6) for bar in axes.patches] == [0.6, 0.3]


def test_the_chosen_metric_is_drawn_and_named() -> None:
    (axes,) = draw_accuracy_by_stride([summary([0.5, 0.7])], "clip_top1").axes
    assert axes.get_ylabel() == "top-1 of clips"
    assert axes.lines[0].get_ydata() == pytest.approx([0.6])
    (axes,) = draw_accuracy_by_stride([summary([0.5, 0.7])], "video_top1").axes
    assert axes.get_ylabel() == "top-1 of videos"
    assert axes.lines[0].get_ydata() == pytest.approx([0.0])


def test_strides_of_a_network_are_one_line_fusions_are_several() -> None:
    rows = [summary([0.5], stride=stride, fusion=fusion) for stride in (8, 2) for fusion in ("default", "additive")]
    (axes,) = draw_accuracy_by_energy(rows, "clip_top1").axes
    _, labels = axes.get_legend_handles_labels()
    assert labels == ["hybrid, fusion default", "hybrid, fusion additive"]
    assert [text.get_text().strip() for text in axes.texts] == ["s2", "s8", "s2", "s8"]
    assert axes.lines[0].get_xdata() == pytest.approx([2.0, 0.5])
    assert len(axes.get_xticks()) >= 3


def test_only_a_wide_range_of_energies_has_a_logarithmic_scale() -> None:
    (narrow,) = draw_accuracy_by_energy([summary([0.5], stride=stride) for stride in (2, 8)], "clip_top1").axes
    (wide,) = draw_accuracy_by_energy([summary([0.5], stride=stride) for stride in (2, 128)], "clip_top1").axes
    assert (narrow.get_xscale(), wide.get_xscale()) == ("linear", "log")


def test_networks_that_do_not_fuse_have_no_fusion_in_their_label() -> None:
    rows = [summary([0.5]), summary([0.5], fusion="additive"), summary([0.5], branches="concat")]
    (axes,) = draw_accuracy(rows, "clip_top1").axes
    assert [label.get_text() for label in axes.get_yticklabels()][2] == "concat"
