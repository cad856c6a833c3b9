"""Prediction: raw videos to the classes that a trained network sees in them, clip by clip."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from respike.common.errors import RespikeError, UnreadableVideoError
from respike.common.progress import SILENCE, Progress, Task
from respike.data.clip_encoder import stream_clips
from respike.data.loader import make_batch
from respike.types import EventClip
from respike.workflows.inputs import load_model, next_step, prepare_config_of
from respike.zoo.checkpoint import CheckpointSpec
from respike.zoo.device import resolve_device
from respike.zoo.nn.respike import ReSpike
from respike.zoo.predictions import Guess, VideoVote, best_guesses


@dataclass(frozen=True, kw_only=True)
class VideoPrediction:
    """The classes that a network sees in one video, the most probable first, and the time that it took.

    `video_seconds` is the length of the video. `decode_seconds` is the time until clips were batches,
    `network_seconds` the time of the network, `first_answer_seconds` the time until the first clip was classified.
    """

    video: str
    guesses: tuple[Guess, ...]
    num_clips: int
    video_seconds: float
    decode_seconds: float
    network_seconds: float
    first_answer_seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as `respike predict --json` prints it."""
        return {
            "video": self.video,
            "predictions": [asdict(guess) for guess in self.guesses],
            "num_clips": self.num_clips,
            "video_seconds": round(self.video_seconds, 3),
            "latency": {
                "decode_ms_per_clip": round(1e3 * self.decode_seconds / self.num_clips, 3),
                "network_ms_per_clip": round(1e3 * self.network_seconds / self.num_clips, 3),
                "first_answer_ms": round(1e3 * self.first_answer_seconds, 3),
            },
        }


def predict(
    checkpoint: str | Path,
    videos: str | Path | Iterable[str | Path],
    *,
    top: int = 5,
    device: str = "auto",
    on_clip: Callable[[Path, EventClip, Guess], None] | None = None,
    on_failure: Callable[[Path, UnreadableVideoError], None] | None = None,
    progress: Progress = SILENCE,
) -> Iterator[VideoPrediction]:
    """Classify raw videos with a trained network; yield a prediction for each. `respike predict` calls this.

    Clips are cut, encoded and decoded as for the training of the network, so that the probabilities are those that
    `evaluate` counts. A video of any length needs the memory of a few clips.

    - `checkpoint`: as for `load_model`. `videos`: one path, or several.
    - `top`: the number of classes to name. `device`: `auto`, `cpu`, `cuda` or `mps`.
    - `on_clip`: called with the video, the clip and its most probable class as soon as a clip is classified.
    - `on_failure`: called with a video that cannot be read and the error; the other videos follow.

    Raises CheckpointError if the weights are missing or damaged. Without `on_failure`, raises RespikeError at the first
    video that cannot be read.
    """
    model, spec = load_model(checkpoint, resolve_device(device), progress=progress)
    paths = [Path(videos)] if isinstance(videos, str | Path) else [Path(video) for video in videos]
    return _predict_all(paths, model, spec, top, on_clip, on_failure, progress)


def _predict_all(
    paths: list[Path],
    model: ReSpike,
    spec: CheckpointSpec,
    top: int,
    on_clip: Callable[[Path, EventClip, Guess], None] | None,
    on_failure: Callable[[Path, UnreadableVideoError], None] | None,
    progress: Progress,
) -> Iterator[VideoPrediction]:
    settings = prepare_config_of(spec)
    num_failed = 0
    with progress.task("predict", total=len(paths), unit="videos") as task:
        for path in paths:
            classifier = _ClipClassifier(path, model, spec, task, on_clip)
            try:
                video = stream_clips(path, settings, classifier)
            except UnreadableVideoError as error:
                if on_failure is None:
                    raise RespikeError(f"{path}: {error}", next_step(path, error)) from error
                num_failed += 1
                on_failure(path, error)
            else:
                yield VideoPrediction(
                    video=str(path),
                    guesses=best_guesses(classifier.vote.probabilities(), spec.data.classes, top),
                    num_clips=classifier.vote.num_clips,
                    video_seconds=video.seconds,
                    decode_seconds=classifier.decode_seconds,
                    network_seconds=classifier.network_seconds,
                    first_answer_seconds=classifier.first_answer_seconds or 0.0,
                )
            task.advance(1, failed=num_failed)


class _ClipClassifier:
    """Classifies each clip of a video as it is decoded, and measures the time."""

    def __init__(
        self,
        path: Path,
        model: ReSpike,
        spec: CheckpointSpec,
        task: Task,
        on_clip: Callable[[Path, EventClip, Guess], None] | None,
    ) -> None:
        self._path, self._model, self._spec, self._task, self._on_clip = path, model, spec, task, on_clip
        self._started = self._left = time.perf_counter()
        self.first_answer_seconds: float | None = None
        self.restart()

    def restart(self) -> None:
        self.vote = VideoVote(self._model)
        self.decode_seconds = self.network_seconds = 0.0

    def take(self, clip: EventClip) -> None:
        batch = make_batch([clip], self._spec.image_size, self._spec.eval_crop)
        entered = time.perf_counter()
        self.decode_seconds += entered - self._left
        # the answer is on the CPU, so the time includes all work of an accelerator
        probabilities = self.vote.add(batch)
        self._left = time.perf_counter()
        self.network_seconds += self._left - entered
        self.first_answer_seconds = self.first_answer_seconds or self._left - self._started
        self._task.advance(0, clips=self.vote.num_clips)
        if self._on_clip is not None:
            self._on_clip(self._path, clip, best_guesses(probabilities[0], self._spec.data.classes, 1)[0])
