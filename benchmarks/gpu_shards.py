"""Shards for the loader and the training of the GPU's benchmark: one clip of UCF101's kind under many names."""

from pathlib import Path


def make_shards(folder: Path, video: Path | None, *, num_names: int, num_workers: int) -> Path:
    """Prepare `video`, or one that is made on the spot, under `num_names` names of two classes; return the shards."""
    # here, since they are not on every machine that has a GPU
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
