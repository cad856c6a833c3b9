"""Time of the network compared with the same network computed step by step: forward, and forward and backward.

    python benchmarks/bench_model.py [--model respike_r18] [--frames 16] [--device cpu] [--rounds 5] [--json PATH]

The input is one clip at 224 x 224, stride 4. The stepping network (`benchmarks/stepping.py`) has the same weights. A
check compares its logits. It runs with tensors in the default memory format of torch, and again in channels-last.
"""

import argparse
import copy
from functools import partial

import torch
from respike.zoo import create_model
from torch import Tensor, nn

import harness
from stepping import SteppingReSpike

STRIDE, SIZE, NUM_CLASSES = 4, 224, 101


def main() -> None:
    """Measure forward, then forward and backward; report both."""
    arguments = harness.parse_arguments(__doc__, add_arguments)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    torch.set_num_threads(arguments.threads)
    model = create_model(arguments.model, num_classes=NUM_CLASSES).to(device)
    init_fusions(model)
    contiguous = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    networks = {
        "respike": model,
        "stepping": SteppingReSpike(contiguous),
        "stepping, channels last": SteppingReSpike(copy.deepcopy(model)),
    }
    num_groups = arguments.frames // STRIDE
    clip = (
        torch.randint(0, 256, (1, num_groups, 3, SIZE, SIZE), dtype=torch.uint8, device=device),
        torch.randint(-30, 31, (1, num_groups, STRIDE - 1, 3, SIZE, SIZE), dtype=torch.int16, device=device),
    )
    check_same_logits(networks, clip)
    for title, step in (("forward", forward), ("forward and backward", train)):
        comparison = harness.compare(
            f"{arguments.model} {title}",
            {name: partial(step, network, clip, device) for name, network in networks.items()},
            baseline="stepping",
            rounds=arguments.rounds,
            unit="clip",
            facts={"frames": arguments.frames, "device": str(device), "threads": torch.get_num_threads()},
        )
        path = arguments.json and arguments.json.with_stem(f"{arguments.json.stem}-{title.replace(' ', '-')}")
        harness.report(comparison, path)


def init_fusions(model: nn.Module) -> None:
    """Give the fusions random weights. They start at zero, so the check would miss a network without fusion."""
    for fusion in model.fusions:
        nn.init.normal_(fusion.project_out.weight, std=0.05)


def check_same_logits(networks: dict[str, nn.Module], clip: tuple[Tensor, Tensor]) -> None:
    """Compare the logits of all networks in float64."""
    with torch.no_grad():
        logits = [copy.deepcopy(network).eval().double()(*clip, "ycc") for network in networks.values()]
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], rtol=0, atol=1e-9)


def forward(network: nn.Module, clip: tuple[Tensor, Tensor], device: torch.device) -> None:
    """Compute the logits of one clip."""
    network.eval()
    with torch.inference_mode():
        network(*clip, "ycc")
    finish(device)


def train(network: nn.Module, clip: tuple[Tensor, Tensor], device: torch.device) -> None:
    """Compute forward and backward of one clip."""
    network.train()
    network.zero_grad()
    network(*clip, "ycc").logsumexp(dim=1).sum().backward()
    finish(device)


def finish(device: torch.device) -> None:
    """Wait until the accelerator is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument("--model", default="respike_r18")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on the CPU")


if __name__ == "__main__":
    main()
