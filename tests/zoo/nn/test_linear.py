"""Linear layers by oneDNN: torch's own to the last digits, there and back, and in their place nowhere else."""

import pytest
import torch
from respike.zoo.nn import linear
from respike.zoo.nn.linear import OneDnnLinear, OneDnnPointwiseConv
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

SHAPES = [(7, 33), (3, 5, 64), (2, 3, 4, 31), (1, 1)]


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def pass_through(layer, rows, weights):
    rows = rows.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    layer.zero_grad()
    mapped = layer(rows)
    mapped.backward(weights.expand_as(mapped))
    return [mapped.detach(), rows.grad, *(parameter.grad.clone() for parameter in layer.parameters())]


def hold(ours, theirs, rows, weights):
    theirs.load_state_dict(ours.state_dict())
    for mine, reference in zip(pass_through(ours, rows, weights), pass_through(theirs, rows, weights), strict=True):
        assert mine.shape == reference.shape
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-5 * float(reference.abs().max()))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_layer_and_its_gradients_are_torch_s(shape, bias):
    hold(OneDnnLinear(shape[-1], 18, bias=bias), nn.Linear(shape[-1], 18, bias=bias), draw(*shape), draw(18))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_pointwise_convolution_and_its_gradients_are_torch_s(order, bias):
    maps = draw(3, 24, 5, 7).contiguous(memory_format=order)
    hold(OneDnnPointwiseConv(24, 40, bias=bias), nn.Conv2d(24, 40, 1, bias=bias), maps, draw(40, 1, 1))


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_a_gradient_lies_in_memory_as_its_weight_does(order):
    layer = OneDnnPointwiseConv(24, 40).to(memory_format=order)
    layer(draw(3, 24, 5, 7).contiguous(memory_format=torch.channels_last)).sum().backward()
    assert layer.weight.grad.stride() == layer.weight.stride()


def test_rows_with_gaps_are_read_right():
    layer, rows = OneDnnLinear(12, 5), draw(9, 24)[:, ::2]
    torch.testing.assert_close(layer(rows), F.linear(rows, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)


def seen_operators(run):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
        run()
    return {event.key for event in recorded.key_averages()}


@pytest.mark.skipif(linear._OPERATOR is None, reason="this build of torch has no oneDNN")
def test_onednn_computes_it_in_single_precision_alone():
    layer, rows = OneDnnLinear(16, 8), draw(4, 16)
    assert any("mkldnn::" in name for name in seen_operators(lambda: layer(rows)))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for other in (lambda: compiled(rows), lambda: layer.double()(rows.double())):
        assert not any("mkldnn::_linear" in name for name in seen_operators(other))


def test_double_precision_is_torch_s_to_the_bit():
    layer, rows = OneDnnLinear(16, 8).double(), draw(4, 16).double()
    assert torch.equal(layer(rows), F.linear(rows, layer.weight, layer.bias))


def test_a_counter_of_operations_sees_the_layer():
    layer, maps = OneDnnPointwiseConv(16, 8), draw(2, 16, 3, 3).contiguous(memory_format=torch.channels_last)
    with FlopCounterMode(display=False) as counter:
        layer(maps).sum().backward()
    # forward and the weight's gradient; that of the input is not asked for
    assert counter.get_total_flops() == 2 * 2 * (2 * 9) * 16 * 8


def test_no_row_is_no_error():
    assert OneDnnLinear(4, 3)(torch.empty(0, 4)).shape == (0, 3)
