"""Energy promises: counts that a hand can check, rates measured and not assumed."""

import pytest
import torch
from respike.sample import Batch
from respike.zoo.energy import AC_JOULES, MAC_JOULES, estimate_energy
from respike.zoo.models import create_model
from torch import nn


def batch_of(residuals):
    count, groups = residuals.shape[:2]
    return Batch(
        keys=torch.randint(0, 256, (count, groups, 3, 64, 64), dtype=torch.uint8),
        residuals=residuals,
        color="rgb",
        labels=torch.zeros(count, dtype=torch.int64),
        video_ids=tuple(map(str, range(count))),
        clip_indices=torch.zeros(count, dtype=torch.int64),
        mask=torch.ones(count, dtype=torch.bool),
    )


class TwoLayers(nn.Module):
    """A real-valued convolution, spikes at a known rate, a convolution on spikes."""

    def __init__(self):
        super().__init__()
        self.snn = nn.ModuleDict(
            {"stem": nn.Conv2d(3, 4, 3, padding=1, bias=False), "conv": nn.Conv2d(4, 8, 1, bias=False)}
        )

    def forward(self, keys, residuals, color):
        real = self.snn["stem"](residuals.flatten(0, 2).float())
        spikes = torch.zeros_like(real)
        spikes[..., ::4] = 1  # a quarter of the columns
        return self.snn["conv"](spikes)


def test_two_layers_agree_with_a_count_by_hand():
    residuals = torch.zeros(2, 1, 1, 3, 8, 8, dtype=torch.int16)
    residuals[..., :4] = 5
    report = estimate_energy(TwoLayers(), batch_of(residuals))
    stem, conv = report.layers
    assert (stem.macs, stem.acs, stem.input_rate) == (8 * 8 * 4 * 3 * 9, 0, None)
    assert (conv.macs, conv.acs, conv.input_rate) == (0, 8 * 8 * 8 * 4 / 4, 0.25)
    assert report.joules == pytest.approx(stem.macs * MAC_JOULES + conv.acs * AC_JOULES)
    assert report.stem_event_density == 0.5
    assert report.sparse_stem_joules == pytest.approx(stem.macs * MAC_JOULES / 2 + conv.acs * AC_JOULES)


def test_a_network_is_accounted_for_by_branch_and_keeps_its_mode():
    torch.manual_seed(0)
    model = create_model("respike_tiny", num_classes=4).train()
    report = estimate_energy(model, batch_of(torch.randint(-90, 90, (1, 4, 3, 3, 64, 64)).short()))
    assert model.training
    branches = report.by_branch()
    assert set(branches) == {"ANN", "SNN", "fusion", "head"}
    assert report.joules == pytest.approx(sum(joules for *_, joules in branches.values()))
    assert branches["SNN"][1] > 0
    assert branches["ANN"][1] == branches["fusion"][1] == 0
    spiking = [layer for layer in report.layers if layer.input_rate is not None]
    assert len(spiking) == 8
    assert all(0 <= layer.input_rate <= 1 for layer in spiking)


def test_attention_is_counted():
    """The fused kernel is invisible to the counter on a CPU; the account must not lose the products of attention."""
    model = create_model("respike_tiny", num_classes=4)
    report = estimate_energy(model, batch_of(torch.zeros(1, 4, 3, 3, 64, 64, dtype=torch.int16)))
    attention = [layer for layer in report.layers if layer.name.endswith(("self_attention", "cross_attention"))]
    assert attention
    assert all(layer.macs > 0 for layer in attention)


def test_the_account_is_of_one_clip_whatever_the_batch():
    model = create_model("respike_tiny", num_classes=4)
    one = torch.randint(-90, 90, (1, 4, 3, 3, 64, 64)).short()
    single, double = (estimate_energy(model, batch_of(one.repeat(n, 1, 1, 1, 1, 1))) for n in (1, 2))
    assert double.by_branch()["ANN"] == single.by_branch()["ANN"]
