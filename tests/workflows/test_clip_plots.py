"""Pictures of clips: any class name and any path can be drawn."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from respike.data.loader import make_batch
from respike.types import ClipInfo, EventClip
from respike.workflows.clip_plots import contact_sheet, draw_evidence
from respike.workflows.plots import figure_png

NAMES = ["跳舞", "a very long name " * 12, "cost $5 or $6"]


def make_clip(class_name: str) -> EventClip:
    generator = np.random.default_rng(0)
    keys = generator.integers(0, 255, (2, 3, 16, 16)).astype(np.uint8)
    planes = tuple(generator.integers(-2, 3, (2, 3, 16, 16)).astype(np.int8) for _ in range(3))
    info = ClipInfo(
        video=f"{class_name}.mp4",
        label=0,
        class_name=class_name,
        subset="test",
        clip_index=0,
        frame_indices=tuple(range(8)),
        times_seconds=tuple(number / 25 for number in range(8)),
        num_padded=0,
        width=16,
        height=16,
        rotation_degrees=0,
        partial=False,
    )
    return EventClip(key="0", keys=keys, planes=planes, threshold=8, color="rgb", info=info)


@pytest.mark.parametrize("name", NAMES)
def test_the_contact_sheet_draws_any_class_name_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert figure_png(contact_sheet([make_clip(name)])).startswith(b"\x89PNG")


def test_the_contact_sheet_refuses_no_clips():
    with pytest.raises(ValueError, match="at least one clip"):
        contact_sheet([])


@pytest.mark.parametrize("name", NAMES)
def test_the_evidence_draws_any_class_name_and_keeps_its_axes(name):
    batch = make_batch([make_clip(name)], 32)
    probabilities = np.array([[0.7, 0.3], [0.6, 0.4]])
    explanation = SimpleNamespace(verdict=probabilities, evidence=probabilities)
    figure = draw_evidence(explanation, batch, [name, "b"], title=f"{name}.mp4, clip 0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure_png(figure)
    assert figure.axes[-1].get_position().width > 0.5
