"""The LIF layer against those of SpikingJelly and snnTorch: forward and backward, time and memory.

    python benchmarks/bench_lif.py [--steps 3] [--groups 4] [--shape 64 56 56] [--device cpu] [--rounds 7] [--json PATH]

The same neuron in all: hard reset to 0 that passes no gradient, arctangent surrogate. SpikingJelly runs its multi-step
mode (on a GPU with its fused backend beside the plain one), snnTorch, which has none, a loop over time. The neuron of
snnTorch adds the current whole where the others take 1/τ of it; it is given the current so scaled. Memory is the most
that torch held at a time beyond the current, in forward and backward together.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from respike.zoo.nn.lif import LIF, LIFSettings
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import harness

TAU, REPEATS = 4 / 3, 5
PEERS = {"spikingjelly": "spikingjelly.activation_based.neuron", "snntorch": "snntorch"}

Layer = Callable[[Tensor], Tensor]
"""Currents `[T, G, ...]` → spikes of that shape."""


def main() -> None:
    """Run the layers in turns, publish."""
    arguments = harness.parse_arguments(__doc__, add_arguments)
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    found, left_out = harness.find_peers(PEERS)
    layers = {"respike": respike_layer()}
    if "spikingjelly" in found:
        layers["spikingjelly"] = spikingjelly_layer("torch")
        if device.type == "cuda":
            layers["spikingjelly, cupy"] = spikingjelly_layer("cupy")
    if "snntorch" in found:
        layers["snntorch"] = snntorch_layer()
    current = torch.randn(arguments.steps, arguments.groups, *arguments.shape, device=device) + 0.5
    check_same_spikes(layers, current)
    memory = {name: {"MB at most": round(peak_bytes(layer, current) / 1e6, 1)} for name, layer in layers.items()}
    comparison = harness.compare(
        "LIF forward and backward",
        {name: partial(run, layer, current, REPEATS) for name, layer in layers.items()},
        baseline="respike",
        rounds=arguments.rounds,
        units=dict.fromkeys(layers, REPEATS),
        unit="pass",
        facts={"current": list(current.shape), "MB": current.nbytes / 1e6, "device": str(device)},
        extras=memory,
        left_out=left_out,
    )
    harness.publish(comparison, arguments.json)


def respike_layer() -> Layer:
    """Ours: steps folded into the batch."""
    neurons = LIF(LIFSettings(tau=TAU))
    return lambda current: neurons(current.flatten(0, 1), len(current)).view(current.shape)


def spikingjelly_layer(backend: str) -> Layer:
    """SpikingJelly's LIFNode in multi-step mode."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    neurons = neuron.LIFNode(tau=TAU, detach_reset=True, surrogate_function=surrogate.ATan(alpha=2.0), step_mode="m")
    neurons.backend = backend

    def run(current: Tensor) -> Tensor:
        functional.reset_net(neurons)
        return neurons(current)

    return run


def snntorch_layer() -> Layer:
    """Leaky of snnTorch, stepped."""
    import snntorch

    neurons = snntorch.Leaky(
        beta=1 - 1 / TAU, spike_grad=snntorch.surrogate.atan(alpha=2.0), reset_mechanism="zero", reset_delay=False
    )

    def run(current: Tensor) -> Tensor:
        membrane, spikes = neurons.init_leaky(), []
        for arriving in current / TAU:
            fired, membrane = neurons(arriving, membrane)
            spikes.append(fired)
        return torch.stack(spikes)

    return run


def check_same_spikes(layers: dict[str, Layer], current: Tensor) -> None:
    """Hold the spikes against one another; a potential that rounds across the threshold is let pass."""
    spikes = [layer(current) for layer in layers.values()]
    for name, other in zip(layers, spikes, strict=True):
        share = float((other != spikes[0]).float().mean())
        assert share < 1e-4, f"{name} is another neuron: {share:.1%} of its spikes differ"


def run(layer: Layer, current: Tensor, num_times: int) -> None:
    """Forward and backward."""
    for _ in range(num_times):
        leaf = current.detach().requires_grad_()
        layer(leaf).sum().backward()
    if current.is_cuda:
        torch.cuda.synchronize()


def peak_bytes(layer: Layer, current: Tensor) -> int:
    """The most memory that torch held at a time in a forward and backward pass, beyond what it held before."""
    run(layer, current, 1)
    if current.is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run(layer, current, 1)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run(layer, current, 1)
    held = most = 0
    for event in recorded.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What runs where."""
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--shape", type=int, nargs="+", default=[64, 56, 56])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on the CPU")


if __name__ == "__main__":
    main()
