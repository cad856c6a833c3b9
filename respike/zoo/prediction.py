"""Prediction: the clips of one video, one after another → class probabilities, the mean of the clips' as in scoring."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from respike.errors import RespikeError
from respike.sample import Batch


@dataclass(frozen=True, kw_only=True)
class Guess:
    """One class that a network holds possible, and how probable, from 0 to 1."""

    class_name: str
    probability: float


class VideoVote:
    """The mean of the probabilities of a video's clips so far; takes no more memory for more clips."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._device = next(model.parameters()).device
        self._sum: Tensor | None = None
        self.num_clips = 0

    def add(self, batch: Batch) -> Tensor:
        """Let the network look at clips; return their probabilities `[B, K]`, on the CPU.

        The network answers in the mode it is in. Raises RespikeError where an answer is not finite.
        """
        moved = batch.to(self._device)
        with torch.no_grad():
            logits = self._model(moved.keys, moved.residuals, moved.color).float().cpu()
        if not bool(logits.isfinite().all()):
            raise RespikeError(
                f"the network's answer to a clip of {batch.video_ids[0]} is not a finite number",
                "the weights are damaged or training diverged: use an earlier checkpoint",
            )
        probabilities: Tensor = logits.softmax(dim=1)
        # in float64, so that an hour of clips adds no rounding
        total = probabilities.double().sum(dim=0)
        self._sum = total if self._sum is None else self._sum + total
        self.num_clips += len(probabilities)
        return probabilities

    def probabilities(self) -> Tensor:
        """The video's probabilities `[K]`, float32. Raises RespikeError where no clip was added."""
        if self._sum is None:
            raise RespikeError("the video makes no clip", "take a longer one")
        return (self._sum / self.num_clips).float()


def best_guesses(probabilities: Tensor, classes: Sequence[str], most: int) -> tuple[Guess, ...]:
    """Return the `most` most probable classes (all, where there are fewer), the likeliest first; ties by label."""
    order = torch.argsort(probabilities, descending=True, stable=True)[:most].tolist()
    return tuple(Guess(class_name=classes[label], probability=float(probabilities[label])) for label in order)
