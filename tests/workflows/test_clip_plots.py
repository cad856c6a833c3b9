"""The contact sheet: what a reader of it must not stumble over."""

import warnings

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from respike.workflows import clip_plots


@pytest.mark.parametrize("words", ["跳舞", "plain"])
def test_a_class_name_that_the_font_lacks_raises_no_warning(words):
    figure = Figure(figsize=(2, 1))
    FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert clip_plots._write(figure, 5, 5, words, size=10) > 5
        assert clip_plots.figure_png(figure).startswith(b"\x89PNG")
