"""The LIF layer against those of SpikingJelly and snnTorch: forward and backward, time and memory.

    python benchmarks/bench_lif.py [--steps 3] [--groups 4] [--shape 64 56 56] [--device cpu] [--rounds 5] [--json PATH]

The same neuron in all: hard reset to 0 that passes no gradient, arctangent surrogate. On a GPU respike runs its fused
kernels beside the plain version. SpikingJelly runs its multi-step mode (on a GPU what it chooses there, in versions
before 2 each backend that it has), snnTorch, which has none, a loop over time. The neuron of snnTorch adds the current
whole where the others take 1/τ of it; it is given the current so scaled. Memory is the most that torch held at a time
beyond the current, in forward and backward together.
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
"""Currents `[T, G, ...]` → spikes of that shape."""


def main() -> None:
    """Run the layers in turns, publish."""
    arguments = harness.parse_arguments(__doc__, add_arguments)
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    found, left_out = harness.find_peers(PEERS)
    current = torch.randn(arguments.steps, arguments.groups, *arguments.shape, device=device) + 0.5
    harness.publish(compare(current, arguments.rounds, found, left_out), arguments.json)


def compare(current: Tensor, rounds: int, found: set[str], left_out: list[str]) -> dict[str, Any]:
    """Measure all layers on one current."""
    layers, missing = make_layers(current, found)
    memory = {name: {"MB at most": round(peak_bytes(layer, current) / 1e6, 1)} for name, layer in layers.items()}
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
    """The layers that run here and fire as ours do, and a line on each that does not."""
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
        # a peer that lacks this type, or a compiler that it needs, raises whatever it likes; ours has to run
        except Exception as error:
            if name == "respike":
                raise
            left_out.append(f"{name}: {next(iter(str(error).strip().splitlines()), type(error).__name__)}")
    return layers, left_out


def respike_layer(backend: str = "torch") -> Layer:
    """Ours: steps folded into the batch."""
    neurons = LIF(LIFSettings(tau=TAU))
    set_lif_backend(neurons, backend)
    return lambda current: neurons(current.flatten(0, 1), len(current)).view(current.shape)


def spikingjelly_backends() -> list[str]:
    """Those that one may choose from; from version 2 on it chooses itself."""
    from spikingjelly.activation_based import neuron

    return list(getattr(neuron.LIFNode(step_mode="m"), "supported_backends", ["torch"]))


def spikingjelly_layer(backend: str) -> Layer:
    """SpikingJelly's LIFNode in multi-step mode."""
    from spikingjelly.activation_based import functional, neuron, surrogate

    neurons = neuron.LIFNode(tau=TAU, detach_reset=True, surrogate_function=surrogate.ATan(alpha=2.0), step_mode="m")
    if hasattr(neurons, "supported_backends"):
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


def check_same_spikes(name: str, spikes: Tensor, ours: Tensor) -> None:
    """Hold the spikes against ours; a potential that rounds across the threshold is let pass."""
    share = float((spikes != ours).float().mean())
    most = 1e-4 if ours.dtype == torch.float32 else 0.02
    assert share < most, f"{name} is another neuron: {share:.1%} of its spikes differ"


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
