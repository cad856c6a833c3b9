"""Time and memory of the LIF layer, forward and backward, compared with SpikingJelly and snnTorch.

    python benchmarks/bench_lif.py [--steps 3] [--groups 4] [--shape 64 56 56] [--device cpu] [--rounds 5] [--json PATH]

All compute the same neuron: hard reset to 0 without gradient, arctangent surrogate. On a GPU respike also runs its
fused kernels. SpikingJelly runs its multi-step mode: on a GPU with the backend that it chooses, or before version 2
with each backend that it has. snnTorch has no multi-step mode and runs a loop over time. Its neuron adds the complete
input current, the others 1/τ of it, so it gets the current divided by τ. Memory is the peak of torch beyond the
current, over forward and backward.
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from respike.zoo.nn.lif import LIF, LIFSettings, set_lif_backend
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import harness

TAU, REPEATS = 4 / 3, 5
PEERS = {"spikingjelly": "spikingjelly.activation_based.neuron", "snntorch": "snntorch"}

Layer = Callable[[Tensor], Tensor]
"""Currents `[steps, groups, ...]` → spikes of the same shape."""


def main() -> None:
    """Measure and report the layers."""
    arguments = harness.parse_arguments(__doc__, add_arguments)
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    found, left_out = harness.find_peers(PEERS)
    current = torch.randn(arguments.steps, arguments.groups, *arguments.shape, device=device) + 0.5
    harness.report(compare(current, arguments.rounds, found, left_out), arguments.json)


def compare(current: Tensor, rounds: int, found: set[str], left_out: list[str]) -> dict[str, Any]:
    """Measure all layers with one input current."""
    layers, missing = make_layers(current, found)
    memory = {name: {"peak MB": round(peak_bytes(layer, current) / 1e6, 1)} for name, layer in layers.items()}
    facts = {"current": list(current.shape), "MB": current.nbytes / 1e6, "type": str(current.dtype)}
    return harness.compare(
        "LIF forward and backward",
        {name: partial(run, layer, current, REPEATS) for name, layer in layers.items()},
        baseline="respike",
        rounds=rounds,
        units=dict.fromkeys(layers, REPEATS),
        unit="pass",
        facts=facts | {"device": str(current.device)},
        extras=memory,
        left_out=left_out + missing,
    )


def make_layers(current: Tensor, found: set[str]) -> tuple[dict[str, Layer], list[str]]:
    """Return the layers that run here with the same spikes as respike, and one line for each that does not."""
    makers: dict[str, Callable[[], Layer]] = {"respike": respike_layer}
    if current.is_cuda:
        makers["respike, fused"] = lambda: respike_layer("triton")
    if "spikingjelly" in found:
        backends = spikingjelly_backends() if current.is_cuda else ["torch"]
        own = {f"spikingjelly, {backend}": partial(spikingjelly_layer, backend) for backend in backends}
        makers |= own if len(own) > 1 else {"spikingjelly": partial(spikingjelly_layer, "torch")}
    if "snntorch" in found:
        makers["snntorch"] = snntorch_layer
    layers: dict[str, Layer] = {}
    left_out: list[str] = []
    for name, make in makers.items():
        try:
            layer = make()
            check_same_spikes(name, layer(current), next(iter(layers.values()), layer)(current))
            layers[name] = layer
        # a peer without this dtype or without its compiler may raise anything; respike itself must run
        except Exception as error:
            if name == "respike":
                raise
            left_out.append(f"{name}: {next(iter(str(error).strip().splitlines()), type(error).__name__)}")
    return layers, left_out


def respike_layer(backend: str = "torch") -> Layer:
    """Return the layer of respike: steps are folded into the batch."""
    neurons = LIF(LIFSettings(tau=TAU))
    set_lif_backend(neurons, backend)
    return lambda current: neurons(current.flatten(0, 1), len(current)).view(current.shape)


def spikingjelly_backends() -> list[str]:
    """Return the backends of SpikingJelly; from version 2 on it chooses one itself."""
    from spikingjelly.activation_based import neuron

    return list(getattr(neuron.LIFNode(step_mode="m"), "supported_backends", ["torch"]))


def spikingjelly_layer(backend: str) -> Layer:
    """Return `LIFNode` of SpikingJelly in multi-step mode."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    neurons = neuron.LIFNode(tau=TAU, detach_reset=True, surrogate_function=surrogate.ATan(alpha=2.0), step_mode="m")
    if hasattr(neurons, "supported_backends"):
        neurons.backend = backend

    def run(current: Tensor) -> Tensor:
        functional.reset_net(neurons)
        return neurons(current)

    return run


def snntorch_layer() -> Layer:
    """Return `Leaky` of snnTorch in a loop over time."""
    import snntorch

    neurons = snntorch.Leaky(
        beta=1 - 1 / TAU, spike_grad=snntorch.surrogate.atan(alpha=2.0), reset_mechanism="zero", reset_delay=False
    )

    def run(current: Tensor) -> Tensor:
        membrane, spikes = neurons.init_leaky(), []
        for step in current / TAU:
            step_spikes, membrane = neurons(step, membrane)
            spikes.append(step_spikes)
        return torch.stack(spikes)

    return run


def check_same_spikes(name: str, spikes: Tensor, ours: Tensor) -> None:
    """Compare spikes with those of respike. A few may differ, where rounding moves a potential over the threshold."""
    share = float((spikes != ours).float().mean())
    max_share = 1e-4 if ours.dtype == torch.float32 else 0.02
    assert share < max_share, f"{name} computes another neuron: {share:.1%} of its spikes differ"


def run(layer: Layer, current: Tensor, num_times: int) -> None:
    """Compute forward and backward `num_times` times."""
    for _ in range(num_times):
        leaf = current.detach().requires_grad_()
        layer(leaf).sum().backward()
    if current.is_cuda:
        torch.cuda.synchronize()


def peak_bytes(layer: Layer, current: Tensor) -> int:
    """Return the peak memory of a forward and backward pass, minus the memory held before."""
    run(layer, current, 1)
    if current.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(layer, current, 1)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run(layer, current, 1)
    held = peak = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--shape", type=int, nargs="+", default=[64, 56, 56])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on the CPU")


if __name__ == "__main__":
    main()
