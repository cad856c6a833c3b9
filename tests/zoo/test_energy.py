"""Energy promises: counts that a hand can check, rates measured and not assumed."""

import dataclasses

import pytest
import torch
from respike.common.errors import RespikeError, SettingError
from respike.types import Batch
from respike.zoo.energy import AC_JOULES, MAC_JOULES, EnergyReport, LayerEnergy, estimate_baseline, estimate_energy
from respike.zoo.factory import create_model
from respike.zoo.nn.fusion import plain_attention
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.zoo.modes import mix_modes, modes_of, modes_seen


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


def test_the_stages_of_a_branch_make_up_its_total() -> None:
    names = (
        "snn.stem.conv",
        "snn.stages.1.blocks.0.conv1",
        "snn.stages.1.blocks.1.conv1",
        "snn.stages.2.norm",
        "snn.head",
    )
    layers = tuple(
        LayerEnergy(name=name, branch="SNN", macs=10.0**place, acs=0.0, input_rate=None)
        for place, name in enumerate(names)
    )
    report = EnergyReport(layers=layers, stem_event_density=None)
    (parts,) = report.by_part().values()
    assert {name: figures[0] for name, figures in parts.items()} == {
        "snn.stem": 1,
        "snn.stages.1": 110,
        "snn.stages.2": 1000,
        "snn.head": 10000,
    }
    assert sum(figures[0] for figures in parts.values()) == report.by_branch()["SNN"][0]


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


def test_energy_is_measured_in_eval_mode_and_each_layer_keeps_its_mode():
    model = create_model("respike_tiny", num_classes=4)
    modes = mix_modes(model)
    with modes_seen(model) as seen:
        estimate_energy(model, batch_of(torch.zeros(1, 1, 1, 3, 64, 64, dtype=torch.int16)))
    assert seen == {False}
    assert modes_of(model) == modes


def test_a_report_has_the_sums_of_each_branch():
    torch.manual_seed(0)
    model = create_model("respike_tiny", num_classes=4).train()
    report = estimate_energy(model, batch_of(torch.randint(-90, 90, (1, 4, 3, 3, 64, 64)).short()))
    branches = report.by_branch()
    assert set(branches) == {"ANN", "SNN", "fusion", "head"}
    assert report.joules == pytest.approx(sum(joules for *_, joules in branches.values()))
    assert branches["SNN"][1] > 0
    assert branches["ANN"][1] == branches["fusion"][1] == 0
    spiking = [layer for layer in report.layers if layer.input_rate is not None]
    assert len(spiking) == 8
    assert all(0 <= layer.input_rate <= 1 for layer in spiking)


def fire_always(model):
    for module in model.snn.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)
            nn.init.constant_(module.bias, 9.0)


def test_no_operation_is_counted_twice_or_lost():
    """All rows together, with every neuron firing, are what the counter finds in the whole network."""
    torch.manual_seed(0)
    model = create_model("respike_tiny", num_classes=4).eval()
    batch = batch_of(torch.randint(-90, 90, (1, 4, 3, 3, 64, 64)).short())
    fire_always(model)
    with torch.no_grad(), plain_attention(), FlopCounterMode(display=False) as counter:
        model(batch.keys, batch.residuals, batch.color)
    report = estimate_energy(model, batch)
    assert {layer.input_rate for layer in report.layers} == {None, 1.0}
    assert sum(layer.macs + layer.acs for layer in report.layers) == pytest.approx(counter.get_total_flops() / 2)


def test_the_published_branches_cost_what_their_shapes_say():
    """Worked out by hand for 16 frames at 64×64, stride 4: convolutions of the spiking ResNet-18 on real values."""
    model = create_model("respike_r18", num_classes=4, branches="snn")
    report = estimate_energy(model, batch_of(torch.randint(-90, 90, (1, 4, 3, 3, 64, 64)).short()))
    stem = 27 * 64 * 32**2
    shortcuts = 64 * 64 * 16**2 + 64 * 128 * 8**2 + 128 * 256 * 4**2 + 256 * 512 * 2**2
    assert report.by_branch()["SNN"][0] == 12 * (stem + shortcuts)


def test_a_clip_in_which_nothing_moves_still_has_a_dense_stem():
    model = create_model("respike_tiny", num_classes=4, branches="snn")
    report = estimate_energy(model, batch_of(torch.zeros(1, 4, 3, 3, 64, 64, dtype=torch.int16)))
    stem = report.layers[0]
    assert (stem.name, stem.macs, report.stem_event_density) == ("snn.stem.conv", 12 * 27 * 32 * 32**2, 0)


def test_shortcuts_are_dense_on_a_clip_in_which_nothing_moves():
    """With zero running means, as before any training, every input of a shortcut is zero there."""
    model = create_model("respike_tiny", num_classes=4, branches="snn")
    report = estimate_energy(model, batch_of(torch.zeros(1, 4, 3, 3, 64, 64, dtype=torch.int16)))
    shortcuts = {layer.name: layer for layer in report.layers if "shortcut" in layer.name}
    assert len(shortcuts) == 4
    assert all(layer.macs > 0 and layer.input_rate is None for layer in shortcuts.values())
    assert {layer.input_rate for layer in report.layers if ".conv1" in layer.name or ".conv2" in layer.name} == {0.0}


def test_attention_is_counted():
    """The fused kernel is invisible to the counter on a CPU; the account must not lose the products of attention."""
    model = create_model("respike_tiny", num_classes=4)
    report = estimate_energy(model, batch_of(torch.zeros(1, 4, 3, 3, 64, 64, dtype=torch.int16)))
    attention = [layer for layer in report.layers if layer.name.endswith(("self_attention", "cross_attention"))]
    assert attention
    assert all(layer.macs > 0 for layer in attention)


@pytest.mark.parametrize(("num_residuals", "num_repeats"), [(3, 2), (1, 0)])
def test_keys_and_values_at_every_step_add_their_macs(num_residuals, num_repeats):
    """By hand, for one group at 64 pixels: two linear layers on 16 and on 4 tokens of the key frame."""
    model = create_model("respike_tiny", num_classes=4)
    report = estimate_energy(model, batch_of(torch.zeros(1, 1, num_residuals, 3, 64, 64, dtype=torch.int16)))
    assert report.repeated_kv_macs == num_repeats * 2 * (16 * 64 * 64 + 4 * 96 * 96)
    assert report.repeated_kv_joules == pytest.approx(report.joules + report.repeated_kv_macs * MAC_JOULES)
    assert report.to_json()["repeated_kv_joules"] == report.repeated_kv_joules


def test_the_account_is_of_one_clip_whatever_the_batch():
    model = create_model("respike_tiny", num_classes=4)
    one = torch.randint(-90, 90, (1, 4, 3, 3, 64, 64)).short()
    single, double = (estimate_energy(model, batch_of(one.repeat(n, 1, 1, 1, 1, 1))) for n in (1, 2))
    assert double.by_branch()["ANN"] == single.by_branch()["ANN"]


def test_rates_are_means_over_all_clips_that_count():
    still, moving = (torch.zeros(1, 1, 1, 3, 8, 8, dtype=torch.int16) for _ in range(2))
    moving[...] = 5
    filler = dataclasses.replace(batch_of(moving), mask=torch.tensor([False]))
    report = estimate_energy(TwoLayers(), iter([batch_of(still), batch_of(moving), filler]))
    assert (report.num_clips, report.stem_event_density) == (2, 0.5)
    assert report.layers[0].macs == 8 * 8 * 4 * 3 * 9


def test_without_a_clip_that_counts_there_is_no_account():
    filler = dataclasses.replace(batch_of(torch.zeros(1, 1, 1, 3, 8, 8)), mask=torch.tensor([False]))
    with pytest.raises(RespikeError, match="no clip"):
        estimate_energy(TwoLayers(), filler)


def test_the_most_a_clip_can_take_is_every_neuron_firing():
    report = estimate_energy(TwoLayers(), batch_of(torch.ones(1, 1, 1, 3, 8, 8, dtype=torch.int16)))
    assert report.most_joules == pytest.approx(report.macs * MAC_JOULES + 4 * report.acs * AC_JOULES)


def test_neuron_updates_are_counted_a_clip_and_kept_out_of_the_joules():
    model = create_model("respike_tiny", num_classes=4, branches="snn")
    report = estimate_energy(model, batch_of(torch.zeros(2, 4, 3, 3, 64, 64, dtype=torch.int16)))
    # per block: its first neurons see the block's input, its second the halved map of its own width
    neurons = sum(
        wide_in * (side * 2) ** 2 + wide * side**2
        for wide_in, wide, side in ((32, 32, 16), (32, 32, 8), (32, 64, 4), (64, 96, 2))
    )
    assert report.neuron_updates == 12 * neurons
    assert report.neuron_joules > 0
    assert report.joules == pytest.approx(sum(layer.joules for layer in report.layers))


def counted_by_spikingjelly(model, batch):
    """(multiply-accumulates, synaptic operations) as SpikingJelly's own counters find them."""
    counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
    macs, operations = counters.MACCounter(), counters.SynOpCounter()
    ours = {torch.ops.aten.convolution.default, torch.ops.aten.addmm.default, torch.ops.aten.mm.default}
    macs.rules = {operator: rule for operator, rule in macs.rules.items() if operator in ours}
    with torch.no_grad(), counters.DispatchCounterMode([macs, operations]):
        model(batch.keys, batch.residuals, batch.color)
    return macs.get_total(), operations.get_total()


def test_spikingjelly_counts_the_same_where_no_padding_is_read():
    """Its synaptic operations leave out what falls into the padding; the second layer has none."""
    batch = batch_of(torch.ones(1, 1, 1, 3, 8, 8, dtype=torch.int16) * 5)
    report = estimate_energy(TwoLayers(), batch)
    assert counted_by_spikingjelly(TwoLayers(), batch) == (report.macs, report.acs)


def test_spikingjelly_counts_the_same_in_a_whole_network_but_for_the_padding():
    """With every neuron firing, what it leaves out can be worked out by hand: taps that fall into the padding."""
    torch.manual_seed(0)
    model = create_model("respike_tiny", num_classes=4, branches="concat").eval()
    fire_always(model)
    batch = batch_of(torch.randint(-90, 90, (1, 4, 3, 3, 64, 64)).short())
    report = estimate_energy(model, batch)
    macs, operations = counted_by_spikingjelly(model, batch)
    assert macs == report.macs
    widths = ((32, 32, 16), (32, 32, 8), (32, 64, 4), (64, 96, 2))
    # along one side of length n, three taps an output, less the one (stride 2) or two (stride 1) outside
    inside = sum(narrow * wide * (3 * n - 1) ** 2 + wide * wide * (3 * n - 2) ** 2 for narrow, wide, n in widths)
    assert operations == 12 * inside
    assert report.acs == 12 * sum((narrow + wide) * wide * 9 * n**2 for narrow, wide, n in widths)


def test_a_3d_network_counts_what_its_makers_say():
    """torchvision gives 40.70 GFLOPS, each a multiply-accumulate, for r3d_18 at 16 frames of 112×112."""
    native, large = (estimate_baseline("r3d_18", num_frames=16, image_size=size) for size in (112, 224))
    assert native.macs == pytest.approx(40.70e9, rel=1e-3)
    assert native.joules == native.macs * MAC_JOULES
    assert large.macs == pytest.approx(4 * native.macs, rel=1e-3)


def test_attention_of_a_video_transformer_is_counted():
    assert estimate_baseline("mvit_v2_s", num_frames=16, image_size=224).macs == pytest.approx(64.22e9, rel=1e-3)


def test_an_unknown_baseline_lists_the_names():
    with pytest.raises(SettingError, match=r"choose from.*r3d_18"):
        estimate_baseline("r4d", num_frames=16, image_size=112)


def test_a_size_that_a_baseline_does_not_take_is_named():
    with pytest.raises(SettingError, match="s3d does not take 16 frames of 112×112"):
        estimate_baseline("s3d", num_frames=16, image_size=112)
