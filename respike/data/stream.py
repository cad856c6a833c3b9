"""Streaming: one video → its clips, one after another, as scoring would find them in shards.

Frames are chosen, encoded and decoded again by the code that `respike prepare` and the loader use, so that threshold,
JPEG and sample format leave the same marks.
"""

from collections.abc import Callable
from pathlib import Path

from respike.data.build import encode_video
from respike.data.format import decode_sample
from respike.data.settings import PrepareSettings
from respike.sample import EventClip, VideoRef


def stream_clips(path: Path, settings: PrepareSettings, take: Callable[[EventClip], None]) -> None:
    """Hand the clips of a video to `take`, in the order of their indices, chosen as for an evaluation.

    The clips' labels are -1 and their classes empty: a video alone has none. Raises UnreadableVideoError where
    `respike prepare` would skip the video; clips that were handed on before then do not count.
    """
    video = VideoRef(video_id=path.name, path=path, label=-1, class_name="", subset="")
    for encoded in encode_video(video, settings, training=False):
        take(decode_sample(encoded.key, encoded.members))
