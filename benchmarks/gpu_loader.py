"""How many clips a second the loader gives with several workers, which a training must not outrun."""

import tempfile
import time
from pathlib import Path


def measure_loader(*, batch: int, size: int, workers: int, seconds: float, num_names: int) -> dict[str, float]:
    """Clips a second, from shards of one video of UCF101's kind, 11 clips, under `num_names` names.

    The first batch, which waits for the workers to start, is left out.
    """
    # here, since they are not on every machine that has a GPU
    from respike.data import make_loader, open_shards
    from respike.data.preparation import PrepareConfig, prepare
    from respike.types import VideoListing, VideoRef

    import natural

    with tempfile.TemporaryDirectory() as scratch:
        video = natural.make_natural_clip(Path(scratch), "ucf101")
        videos = tuple(
            VideoRef(video_id=f"v{number}", path=video, label=0, class_name="c", subset="train")
            for number in range(num_names)
        )
        listing = VideoListing(dataset="bench", split=None, evaluation_subset="test", classes=("c",), videos=videos)
        prepare(listing, Path(scratch) / "shards", PrepareConfig(), num_workers=1)
        shards = open_shards(Path(scratch) / "shards")
        loader = make_loader(shards, batch_size=batch, training=True, image_size=size, num_workers=workers)
        num_clips, started = 0, None
        while started is None or time.perf_counter() - started < seconds:
            for clips in loader:
                if started is None:
                    started = time.perf_counter()
                else:
                    num_clips += len(clips)
        spent = time.perf_counter() - started
    return {"clips_per_second": round(num_clips / spent, 1), "workers": workers, "clips": num_clips}
