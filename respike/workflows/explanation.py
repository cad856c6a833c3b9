"""Explanation: a checkpoint and a clip to pictures and numbers of what the network looks at."""

import io
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from respike.common.errors import SettingError
from respike.common.files import canonical_json, write_atomically
from respike.common.progress import SILENCE, Progress
from respike.data.loader import make_batch
from respike.types import Batch, EventClip
from respike.workflows.clip_plots import draw_explanation
from respike.workflows.inputs import find_clip, load_model, prepare_config_of
from respike.zoo.device import resolve_device
from respike.zoo.explanation import Explanation, Spot, strongest_spot
from respike.zoo.explanation import explain as explain_batch
from respike.zoo.predictions import Guess, best_guesses

_NUM_GUESSES = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipExplanation:
    """What a network looks at in one clip.

    `explanation` holds the numbers. `clip` is the clip as it was stored, `batch` as the network saw it, at `image_size`
    pixels. `classes` are those of the network, `branches` the branches that it has.
    """

    explanation: Explanation
    clip: EventClip
    batch: Batch
    classes: tuple[str, ...]
    branches: str
    image_size: int

    @property
    def guesses(self) -> tuple[Guess, ...]:
        """The five most probable classes of the clip."""
        return best_guesses(torch.from_numpy(self.explanation.verdict[-1]), self.classes, _NUM_GUESSES)

    @property
    def title(self) -> str:
        """The video, the clip, its label if it has one, and the most probable class, in one line."""
        info, guess = self.clip.info, self.guesses[0]
        label = f", labelled {info.class_name}" if info.class_name else ""
        return f"{info.video}, clip {info.clip_index}{label}: {guess.class_name} {guess.probability:.0%}"

    def to_json(self, *, top: int = 5) -> dict[str, Any]:
        """Return the numbers as in explanation.json, with `top` tokens of each scale by row and column of its grid."""
        explanation, spot = self.explanation, self.explanation.spot
        return {
            "video": self.clip.info.video,
            "clip": self.clip.info.clip_index,
            # a video outside a data set has none
            "class": self.clip.info.class_name or None,
            "image_size": self.image_size,
            "frame": spot.group * self.clip.stride + spot.step + 1,
            "spot": asdict(spot),
            "predictions": [asdict(guess) for guess in self.guesses],
            "attention": [
                {
                    "scale": scale.scale,
                    "grid": list(scale.weights.shape[1:]),
                    "token": list(scale.token),
                    "top": [{"row": row, "column": column, "weight": weight} for row, column, weight in scale.top(top)],
                }
                for scale in explanation.attention
            ],
            "firing_rates": {layer.name: layer.rate for layer in explanation.layers},
            "evidence": explanation.evidence.tolist(),
            "verdict": explanation.verdict.tolist(),
        }

    def save(self, out: str | Path, *, top: int = 5) -> list[Path]:
        """Write pictures, explanation.json and arrays.npz into the folder `out`; return the paths of the pictures.

        `top` is the number of tokens to draw at each scale. Pictures of an earlier explanation are replaced or removed.
        """
        out = Path(out)
        out.mkdir(parents=True, exist_ok=True)
        pictures = draw_explanation(self.explanation, self.batch, self.classes, out, top=top, title=self.title)
        write_atomically(out / "explanation.json", canonical_json(self.to_json(top=top), indent=2))
        write_atomically(out / "arrays.npz", self._npz())
        return pictures

    def _npz(self) -> bytes:
        explanation = self.explanation
        arrays: dict[str, Any] = {"evidence": explanation.evidence, "verdict": explanation.verdict}
        arrays |= {f"attention.{scale.scale}": scale.weights for scale in explanation.attention}
        for layer in explanation.layers:
            arrays |= {f"{layer.name}.{part}": getattr(layer, part) for part in ("rate_map", "step_rates", "raster")}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()


def explain(
    checkpoint: str | Path,
    source: str | Path,
    *,
    clip: int = 0,
    frame: int | None = None,
    at: tuple[int, int] | None = None,
    device: str = "auto",
    progress: Progress = SILENCE,
) -> ClipExplanation:
    """Show what a trained network looks at in one clip. `respike explain` calls this.

    - `checkpoint`: as for `load_model`. `source`: a folder of shards, or a video.
    - `clip`: the number of the clip, from 0.
    - `frame`: the frame, from 0, whose residual holds the query token; by default the one with the strongest events.
    - `at`: the pixel (x, y) of the query token in the network's image; by default the one with the strongest events.
    - `device`: `auto`, `cpu`, `cuda` or `mps`.

    Raises RespikeError if there is no such clip or if the video cannot be read, and SettingError if `frame` is a key
    frame or outside the clip, or if `at` is outside the image.
    """
    model, spec = load_model(checkpoint, resolve_device(device), progress=progress)
    chosen = find_clip(Path(source), clip, prepare_config_of(spec))
    batch = make_batch([chosen], spec.image_size, spec.eval_crop)
    return ClipExplanation(
        explanation=explain_batch(model, batch, _choose_spot(batch, chosen, frame, at)),
        clip=chosen,
        batch=batch,
        classes=spec.data.classes,
        branches=model.config.branches,
        image_size=spec.image_size,
    )


def _choose_spot(batch: Batch, clip: EventClip, frame: int | None, at: tuple[int, int] | None) -> Spot:
    group = step = None
    if frame is not None:
        num_frames = len(clip.keys) * clip.stride
        group, place = divmod(frame, clip.stride)
        if not 0 <= frame < num_frames or place == 0:
            raise SettingError(
                f"frame {frame} is {'a key frame' if 0 <= frame < num_frames else 'not in the clip'}",
                f"choose from 1 to {num_frames - 1}, no multiple of {clip.stride}",
                setting="frame",
            )
        step = place - 1
    strongest = strongest_spot(batch, group=group, step=step)
    return strongest if at is None else Spot(group=strongest.group, step=strongest.step, row=at[1], column=at[0])
