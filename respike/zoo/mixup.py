"""Mixup: pairs of clips blended in one proportion, and their labels with them."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from respike.types import Batch

IGNORED_LABEL = -100


@dataclass(frozen=True, kw_only=True)
class MixedBatch:
    """A batch of blends: `share` (0 to 1) of each row is of its `labels`, the rest of its `other_labels`."""

    batch: Batch
    labels: Tensor
    other_labels: Tensor
    share: float

    @property
    def main_labels(self) -> Tensor:
        """The labels `[B]` that weigh more, by which a blend counts as told right or wrong."""
        return self.labels if self.share >= 0.5 else self.other_labels

    def loss(self, logits: Tensor, label_smoothing: float) -> Tensor:
        """The mean cross-entropy of `logits` `[B, K]`, of the two labels by their shares."""

        def entropy(labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, label_smoothing=label_smoothing)

        if self.share == 1:
            return entropy(self.labels)
        return self.share * entropy(self.labels) + (1 - self.share) * entropy(self.other_labels)


def mix(batch: Batch, alpha: float | None, seed: tuple[int, ...]) -> MixedBatch:
    """Blend each clip with another of its batch: λ times its own pixels and 1 - λ times the other's, λ ~ Beta(α, α).

    Key frames and residuals take the same λ. A residual is a difference of two frames, hence linear in them: the blend
    of two clips' residuals is the residual of their blended frames, up to what the threshold took from each. Events of
    both clips appear, each weaker by its share, so a blend has more events than a clip, and fewer spikes a clip: firing
    rates are best looked at on clips as they are. An `alpha` of None blends nothing. `seed` decides λ and the pairs,
    so that they hang on no generator's state.

    Source: Zhang et al., *mixup: Beyond Empirical Risk Minimization* (ICLR 2018).
    """
    labels = batch.labels.masked_fill(~batch.mask, IGNORED_LABEL)
    if alpha is None:
        return MixedBatch(batch=batch, labels=labels, other_labels=labels, share=1.0)
    generator = np.random.default_rng(seed)
    share = float(generator.beta(alpha, alpha))
    others = torch.from_numpy(generator.permutation(len(batch))).to(labels.device)
    blended = replace(batch, keys=_blend(batch.keys, others, share), residuals=_blend(batch.residuals, others, share))
    return MixedBatch(batch=blended, labels=labels, other_labels=labels[others], share=share)


def _blend(pixels: Tensor, others: Tensor, share: float) -> Tensor:
    exact = pixels.float()
    return torch.lerp(exact[others], exact, share)
