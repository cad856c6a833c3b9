"""Streaming: one video → its clips, one after another, as scoring would find them in shards.

Frames are chosen, encoded and decoded again by the code that `respike prepare` and the loader use, so that threshold,
JPEG and sample format leave the same marks. Memory does not grow with the video.
"""

from pathlib import Path
from typing import Protocol

from respike.data.encode import EncodedClip, EncodedVideo, encode_video
from respike.data.format import decode_sample
from respike.data.settings import PrepareSettings
from respike.sample import EventClip, VideoRef


class ClipTaker(Protocol):
    """Where the clips of one video go."""

    def take(self, clip: EventClip) -> None:
        """Take the next clip."""

    def restart(self) -> None:
        """Forget the clips so far: they come again, chosen otherwise, since the container had promised wrongly."""


def stream_clips(path: Path, settings: PrepareSettings, taker: ClipTaker) -> EncodedVideo:
    """Hand the clips of a video to `taker`, in the order of their indices, chosen as for an evaluation.

    The clips' labels are -1 and their classes empty: a video alone has none. Raises UnreadableVideoError where
    `respike prepare` would skip the video; clips that were handed on before then do not count.
    """
    video = VideoRef(video_id=path.name, path=path, label=-1, class_name="", subset="")
    return encode_video(video, settings, _Decoder(taker), training=False, beat=lambda _: None)


class _Decoder:
    """The sink that decodes what `prepare` would have written."""

    def __init__(self, taker: ClipTaker) -> None:
        self._taker = taker

    def add(self, clip: EncodedClip) -> None:
        self._taker.take(decode_sample(clip.key, clip.members))

    def restart(self) -> None:
        self._taker.restart()
