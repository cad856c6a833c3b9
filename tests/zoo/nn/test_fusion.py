"""Fusion: an untrained one changes nothing, a trained one asks each step alone; fused and plain attention agree."""

import pytest
import torch
from respike.common.errors import SettingError
from respike.zoo.nn.fusion import Fusion, plain_attention
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode


def random_fusion(*, pool=1, kind="faithful"):
    torch.manual_seed(0)
    fusion = Fusion(64, 96, pool=pool, kind=kind).double()
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return fusion


def maps(size, num_steps=3, num_groups=2):
    generator = torch.Generator().manual_seed(1)
    potential = torch.randn(num_steps * num_groups, 64, size, size, generator=generator, dtype=torch.float64)
    return potential, torch.randn(num_groups, 96, size, size, generator=generator, dtype=torch.float64)


def test_an_untrained_fusion_changes_nothing_but_the_pooling():
    potential, key_map = maps(8)
    assert torch.equal(Fusion(64, 96).double()(potential, key_map), potential)
    pooled = F.interpolate(F.avg_pool2d(potential, 4), scale_factor=4.0, mode="bilinear")
    assert torch.equal(Fusion(64, 96, pool=4).double()(potential, key_map), pooled)


def test_an_additive_fusion_untrained_changes_nothing_at_all():
    potential, key_map = maps(8)
    assert torch.equal(Fusion(64, 96, pool=4, kind="additive").double()(potential, key_map), potential)


def test_an_additive_fusion_adds_the_faithful_one_s_change_and_keeps_the_detail():
    potential, key_map = maps(8)
    faithful = random_fusion(pool=2)(potential, key_map)
    additive = random_fusion(pool=2, kind="additive")(potential, key_map)
    pooled = F.interpolate(F.avg_pool2d(potential, 2), scale_factor=2.0, mode="bilinear")
    torch.testing.assert_close(additive, faithful - pooled + potential, rtol=0, atol=1e-11)
    assert torch.equal(random_fusion(kind="additive")(potential, key_map), random_fusion()(potential, key_map))


def test_an_unknown_kind_of_fusion_lists_the_choices():
    with pytest.raises(SettingError, match="choose from faithful, additive"):
        Fusion(64, 96, kind="sum")


def test_each_step_asks_its_own_group_and_no_other():
    fusion, (potential, key_map) = random_fusion(), maps(4)
    together = fusion(potential, key_map)
    for row in range(6):
        group = row % 2
        alone = fusion(potential[row : row + 1], key_map[group : group + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=0, atol=1e-12)
    changed = fusion(potential, torch.cat([key_map[:1], -key_map[1:]]))
    assert torch.equal(changed[::2], together[::2])
    assert not torch.allclose(changed[1::2], together[1::2])


def test_plain_attention_gives_the_same_and_is_counted():
    fusion, (potential, key_map) = random_fusion(), maps(4)
    with FlopCounterMode(display=False) as fused_counter:
        fused = fusion(potential, key_map)
    with plain_attention(), FlopCounterMode(display=False) as plain_counter:
        plain = fusion(potential, key_map)
    torch.testing.assert_close(plain, fused, rtol=0, atol=1e-11)
    counts = plain_counter.get_flop_counts()["Fusion"]
    products = sum(count for operator, count in counts.items() if "bmm" in str(operator))
    # two attentions of two products, for 6 rows and 64 channels in all heads: tokens × tokens multiply-adds each
    assert products == 2 * 2 * 2 * 6 * 64 * 16 * 16
    assert fused_counter.get_total_flops() <= plain_counter.get_total_flops()


def test_keys_and_values_of_the_key_frame_are_computed_once_a_group():
    fusion, (potential, key_map) = random_fusion(), maps(4)
    seen = []
    fusion.cross_attention.key.register_forward_hook(lambda _, args, __: seen.append(tuple(args[0].shape)))
    fusion(potential, key_map)
    assert seen == [(2, 16, 96)]


def test_channels_that_do_not_divide_into_heads_are_named():
    with pytest.raises(SettingError, match="48 channels"):
        Fusion(48, 96)
