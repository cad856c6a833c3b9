"""The kernels of `lif_triton` in Triton's interpreter, held against `lif.py`. Run by test_lif_triton.

    TRITON_INTERPRET=1 python -m tests.zoo.nn.fused_lif PART ...

Triton decides when it is imported whether it interprets, so this takes a process of its own.
"""

import sys
import traceback

import torch
from respike.zoo.factory import create_model
from respike.zoo.nn import lif, lif_triton
from respike.zoo.nn.lif import LIF, LIFSettings, set_lif_backend

RANDOM = torch.Generator().manual_seed(0)
ONE_ULP = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-9}


def draw(shape, dtype, arrange, *, scale=2.0, shift=0.5):
    """Numbers in one of the orders in memory that a layer meets."""
    numbers = (torch.randn(*shape, generator=RANDOM) * scale + shift).to(dtype)
    if arrange == "channels last":
        return numbers.contiguous(memory_format=torch.channels_last)
    if arrange == "gaps":
        wide = torch.zeros(*shape[:-1], 2 * shape[-1], dtype=dtype)
        wide[..., ::2] = numbers
        return wide[..., ::2]
    return numbers.transpose(0, -1).contiguous().transpose(0, -1) if arrange == "transposed" else numbers


def run(layer, current, num_steps, weights):
    """Spikes, and the gradients of the current and of the rate."""
    current = current.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    layer.zero_grad()
    spikes = layer(current, num_steps)
    spikes.backward(weights)
    return spikes.detach(), current.grad, layer.rate_logit.grad.clone() if layer.settings.learns_tau else None


def check(settings, shape, num_steps, dtype, arrange):
    """Hold the kernels against the plain version, which computes in single precision from the same currents."""
    plain, fused = LIF(settings), LIF(settings)
    set_lif_backend(fused, "triton")
    current, weights = draw(shape, dtype, arrange), draw(shape, dtype, "usual", scale=1, shift=0)
    expected, expected_grad, expected_rate = run(plain, current.float(), num_steps, weights.float())
    spikes, grad, grad_rate = run(fused, current, num_steps, weights)
    told = f"{settings} {shape} {dtype} {arrange}"
    assert spikes.dtype == grad.dtype == dtype, told
    assert 0.1 < spikes.float().mean() < 0.9 or spikes.numel() < 100, told
    assert torch.equal(spikes.float(), expected), told
    tolerance = ONE_ULP[dtype]
    torch.testing.assert_close(grad.float(), expected_grad, rtol=tolerance, atol=tolerance / 4, msg=told)
    if settings.learns_tau:
        torch.testing.assert_close(grad_rate, expected_rate, rtol=1e-3, atol=1e-4, msg=told)


def options():
    """Every reset, learned and fixed rates on either side of a half, odd shapes, each type and order."""
    arranges = ("usual", "channels last", "gaps", "transposed")
    shapes = ((1, 1), (2, 3, 5, 7), (1, 33, 7, 7), (3, 1, 1, 11), (2, 1031))
    for number in range(30):
        num_steps = (1, 2, 3, 7, 15, 32)[number % 6]
        groups, *rest = shapes[number % 5]
        settings = LIFSettings(
            tau=(4 / 3, 1.6, 3.0)[number % 3],
            threshold=(1.0, 0.7)[number % 2],
            surrogate_alpha=(2.0, 3.5)[number // 2 % 2],
            reset=("hard", "soft")[number // 3 % 2],
            learns_tau=bool(number // 5 % 2),
        )
        arrange = arranges[number // 7 % 4] if len(rest) == 3 else ("usual", "gaps")[number // 7 % 2]
        dtype = lif_triton.DTYPES[number // 4 % 3]
        yield settings, (num_steps * groups, *rest), num_steps, dtype, arrange


def neurons():
    """The layer alone."""
    for settings, shape, num_steps, dtype, arrange in options():
        check(settings, shape, num_steps, dtype, arrange)


def empty():
    """No group at all."""
    layer = LIF(LIFSettings(learns_tau=True))
    set_lif_backend(layer, "triton")
    spikes, grad, grad_rate = run(layer, torch.empty(0, 3, 4, 4), 3, torch.empty(0, 3, 4, 4))
    assert spikes.shape == grad.shape == (0, 3, 4, 4)
    assert grad_rate == 0


def operators():
    """What torch.compile builds on: shapes, strides and gradients that the operators tell of themselves."""
    for arrange, learned in (("usual", None), ("channels last", torch.tensor(0.6, requires_grad=True))):
        current = draw((6, 4, 5, 3), torch.float32, arrange).requires_grad_()
        torch.library.opcheck(lif_triton._forward, (current, learned, 0.75, 3, 1.0, 2.0, False))
        layer = LIF(LIFSettings(learns_tau=learned is not None))
        set_lif_backend(layer, "triton")
        weights = draw((6, 4, 5, 3), torch.float32, "usual")
        eager = run(layer, current, 3, weights)
        layer.compile(backend="aot_eager", fullgraph=True)
        for mine, reference in zip(run(layer, current, 3, weights), eager, strict=True):
            assert mine is reference or torch.equal(mine, reference)


def network():
    """A whole network, training, with and without recomputing."""
    keys = torch.randint(0, 256, (1, 2, 3, 32, 32), dtype=torch.uint8, generator=RANDOM)
    residuals = torch.randint(-60, 61, (1, 2, 3, 3, 32, 32), dtype=torch.int16, generator=RANDOM)
    grads = []
    for backend, uses_activation_checkpointing in (("torch", False), ("triton", False), ("triton", True)):
        torch.manual_seed(0)
        model = create_model("respike_tiny", num_classes=5).train()
        model.uses_activation_checkpointing = uses_activation_checkpointing
        set_lif_backend(model, backend)
        model(keys, residuals, "ycc").square().sum().backward()
        grads.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert grads[0].abs().max() > 0.01
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-3, atol=1e-4 * float(grads[0].abs().max()))
    assert torch.equal(grads[2], grads[1])


def wrong():
    """The failing twin: kernels of other neurons are told apart."""
    settings = LIFSettings(threshold=0.7)
    plain, fused = LIF(LIFSettings(threshold=1.0)), LIF(settings)
    set_lif_backend(fused, "triton")
    current = draw((6, 50), torch.float32, "usual")
    assert not torch.equal(run(plain, current, 3, current)[0], run(fused, current, 3, current)[0])


if __name__ == "__main__":
    lif._DEVICE_TYPE = "cpu"
    for part in sys.argv[1:]:
        try:
            globals()[part]()
            print(f"{part} agrees")
        except Exception:
            print(f"{part} fails\n{traceback.format_exc()}")
