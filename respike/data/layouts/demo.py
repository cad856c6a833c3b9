"""demo: the videos that `respike demo` makes, in `{train,test}/<class>/`."""

import dataclasses

from respike.data.layouts.base import LAYOUTS, Layout, ListingRequest
from respike.data.layouts.folder import list_folder
from respike.data.layouts.folders import require_folder
from respike.sample import VideoListing


def list_demo(request: ListingRequest) -> VideoListing:
    """List the demo's videos. Raises LayoutError where they have not been made."""
    require_folder(request.root, "the demo's videos", "make them with `respike demo`, then use --root demo/videos")
    request.official_split("demo", ())
    return dataclasses.replace(list_folder(request), dataset="demo", evaluation_subset="test")


LAYOUTS.add("demo", Layout(name="demo", list_videos=list_demo, default_sampling="dense"))
