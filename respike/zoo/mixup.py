"""Mixup: batches whose clips and labels are blended in pairs."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from respike.types import Batch

IGNORED_LABEL = -100


@dataclass(frozen=True, kw_only=True)
class MixedBatch:
    """A batch of blended clips. `labels` have the weight `share` (0 to 1), `other_labels` the rest; each is `[B]`."""

    batch: Batch
    labels: Tensor
    other_labels: Tensor
    share: float

    @property
    def main_labels(self) -> Tensor:
        """The labels `[B]` with the larger weight; the training accuracy counts these."""
        return self.labels if self.share >= 0.5 else self.other_labels

    def loss(self, logits: Tensor, label_smoothing: float) -> Tensor:
        """Return the mean cross-entropy of `logits` `[B, K]` with both labels, weighted by their shares."""

        def entropy(labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, label_smoothing=label_smoothing)

        if self.share == 1:
            return entropy(self.labels)
        return self.share * entropy(self.labels) + (1 - self.share) * entropy(self.other_labels)


def mix(batch: Batch, alpha: float | None, seed: tuple[int, ...]) -> MixedBatch:
    """Blend each clip with another one of the batch: λ times its pixels plus 1 - λ times the other's, λ ~ Beta(α, α).

    Key frames and residuals have the same λ. A residual is a difference of two frames, so the blend of two residuals
    is the residual of the blended frames, except for what the event threshold removed from each. A blend contains the
    events of both clips, each scaled down: it has more events than a clip and causes fewer spikes. Firing rates should
    therefore be measured on clips that are not blended.

    An `alpha` of None blends nothing. λ and the pairs depend on `seed` alone.

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
