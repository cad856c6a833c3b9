"""Mixup: clips and labels blended in one proportion."""

import numpy as np
import pytest
import torch
from respike.zoo.mixup import mix
from torch.nn import functional as F

from tests.zoo.batches import make_batch

BATCH = make_batch([0, 1, 2, 0])


def test_keys_residuals_and_labels_have_one_proportion() -> None:
    mixed = mix(BATCH, 0.4, (0, 1, 2, 0))
    share = mixed.share
    assert 0 < share < 1
    others = np.random.default_rng((0, 1, 2, 0))
    others.beta(0.4, 0.4)
    order = torch.from_numpy(others.permutation(4))
    for name in ("keys", "residuals"):
        whole = getattr(BATCH, name).float()
        assert torch.allclose(getattr(mixed.batch, name), share * whole + (1 - share) * whole[order], atol=1e-4)
    assert torch.equal(mixed.other_labels, BATCH.labels[order])
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    soft = share * F.one_hot(BATCH.labels, 3) + (1 - share) * F.one_hot(BATCH.labels[order], 3)
    assert mixed.loss(logits, 0.0) == pytest.approx(float(F.cross_entropy(logits, soft)), rel=1e-6)


def test_blended_residuals_are_those_of_blended_frames() -> None:
    first, second = torch.randint(0, 256, (2, 2, 5, 3, 4, 4)).double()
    share = 0.3
    frames = share * first + (1 - share) * second
    of_blend = frames[:, 1:] - frames[:, :1]
    blend = share * (first[:, 1:] - first[:, :1]) + (1 - share) * (second[:, 1:] - second[:, :1])
    assert torch.allclose(of_blend, blend)


def test_without_alpha_a_batch_is_not_changed() -> None:
    mixed = mix(BATCH, None, (0,))
    assert mixed.batch is BATCH
    assert torch.equal(mixed.main_labels, BATCH.labels)
