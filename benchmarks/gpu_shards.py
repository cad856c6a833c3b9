"""Shards for the loader and the training of the GPU benchmark: one UCF101-like video under many names."""

from pathlib import Path


def make_shards(folder: Path, video: Path | None, *, num_names: int, num_workers: int) -> Path:
    """Prepare `video`, or a synthetic one, under `num_names` names in two classes; return the folder of the shards."""
    # imported here because some machines with a GPU lack the packages that these need
    from respike.data.preparation import prepare
    from respike.data.prepare_config import PrepareConfig
    from respike.types import VideoListing, VideoRef

    if video is None:
        import natural

        video = natural.make_natural_clip(folder, "ucf101")
    classes = ("one", "other")
    videos = tuple(
        VideoRef(
            video_id=f"v{number}",
            path=video,
            label=number % 2,
            class_name=classes[number % 2],
            subset="test" if number < 2 else "train",
        )
        for number in range(num_names)
    )
    listing = VideoListing(dataset="bench", split=None, evaluation_subset="test", classes=classes, videos=videos)
    prepare(listing, folder / "shards", PrepareConfig(), num_workers=num_workers)
    return folder / "shards"
