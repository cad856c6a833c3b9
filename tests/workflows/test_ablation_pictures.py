"""Pictures of an ablation: what they show of which setting, and what tells two settings apart."""

import pytest
from respike.workflows.ablation_grid import Setting, Summary
from respike.workflows.plots import draw_accuracy, draw_by_energy, draw_by_stride
from respike.zoo.models import parse_fusion


def summary(values: list[float], *, stride: int = 4, fusion: str = "default", branches: str = "hybrid") -> Summary:
    mean = sum(values) / len(values)
    return Summary(
        setting=Setting(stride=stride, threshold=8, branches=branches, fusion=parse_fusion(fusion)),
        num_seeds=len(values),
        values={"clip_top1": values, "video_top1": [0.0] * len(values)},
        figures={"clip_top1": mean, "video_top1": 0.0},
        deviations={"clip_top1": 0.1 if len(values) > 1 else None, "video_top1": None},
        energy_joules=4e-3 / stride,
        sparse_energy_joules=1e-3,
        event_density=0.1,
        num_parameters=7,
    )


def test_each_seed_is_a_dot_in_its_settings_row() -> None:
    rows = [summary([0.4, 0.6, 0.8]), summary([0.3], branches="ann")]
    (axes,) = draw_accuracy(rows, "clip_top1").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["hybrid", "ann"]
    dots = [tuple(offset) for scatter in axes.collections for offset in scatter.get_offsets().tolist()]
    assert {(0.4, 0), (0.6, 0), (0.8, 0), (0.3, 1)} <= set(dots)
    assert [round(bar.get_width(), 6) for bar in axes.patches] == [0.6, 0.3]


def test_the_figure_that_is_asked_for_is_drawn_and_named() -> None:
    (axes,) = draw_by_stride([summary([0.5, 0.7])], "clip_top1").axes
    assert axes.get_ylabel() == "top-1 of clips"
    assert axes.lines[0].get_ydata() == pytest.approx([0.6])
    (axes,) = draw_by_stride([summary([0.5, 0.7])], "video_top1").axes
    assert axes.get_ylabel() == "top-1 of videos"
    assert axes.lines[0].get_ydata() == pytest.approx([0.0])


def test_strides_of_one_network_are_one_line_and_fusions_are_several() -> None:
    rows = [summary([0.5], stride=stride, fusion=fusion) for stride in (8, 2) for fusion in ("default", "additive")]
    (axes,) = draw_by_energy(rows, "clip_top1").axes
    _, labels = axes.get_legend_handles_labels()
    assert labels == ["hybrid, fusion default", "hybrid, fusion additive"]
    assert [text.get_text().strip() for text in axes.texts] == ["s2", "s8", "s2", "s8"]
    assert axes.lines[0].get_xdata() == pytest.approx([2.0, 0.5])
    assert len(axes.get_xticks()) >= 3


def test_a_wide_range_of_energies_is_drawn_on_a_logarithmic_scale_and_a_narrow_one_evenly() -> None:
    (narrow,) = draw_by_energy([summary([0.5], stride=stride) for stride in (2, 8)], "clip_top1").axes
    (wide,) = draw_by_energy([summary([0.5], stride=stride) for stride in (2, 128)], "clip_top1").axes
    assert (narrow.get_xscale(), wide.get_xscale()) == ("linear", "log")


def test_branches_that_do_not_fuse_name_no_fusion() -> None:
    rows = [summary([0.5]), summary([0.5], fusion="additive"), summary([0.5], branches="concat")]
    (axes,) = draw_accuracy(rows, "clip_top1").axes
    assert [label.get_text() for label in axes.get_yticklabels()][2] == "concat"
