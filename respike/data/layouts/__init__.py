"""Layouts: what lies on disk → the videos a dataset lists. One file a dataset."""

# imported for what they add to LAYOUTS, in the order in which help lists them
from respike.data.layouts import ucf101, hmdb51, kinetics, folder, demo  # noqa: F401, I001
from respike.data.layouts.base import LAYOUTS, Layout, ListingRequest

__all__ = ["LAYOUTS", "Layout", "ListingRequest"]
