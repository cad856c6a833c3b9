"""The network against itself run step by step in time, module by module, as SNNs commonly are: forward, and training.

    python benchmarks/bench_model.py [--model respike_r18] [--frames 16] [--device cpu] [--rounds 5] [--json PATH]

One clip at 224 x 224, stride 4. The stepping network (`benchmarks/stepping.py`) has the same weights and gives the same
answers, which is checked. It runs twice: with tensors in torch's usual order, as such code does, and channels last.
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
    """Run forward, then forward and backward, in turns; publish two tables."""
    arguments = harness.parse_arguments(__doc__, add_arguments)
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    torch.set_num_threads(arguments.threads)
    model = create_model(arguments.model, num_classes=NUM_CLASSES).to(device)
    wake(model)
    usual = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    networks = {
        "respike": model,
        "stepping": SteppingReSpike(usual),
        "stepping, channels last": SteppingReSpike(copy.deepcopy(model)),
    }
    num_groups = arguments.frames // STRIDE
    clip = (
        torch.randint(0, 256, (1, num_groups, 3, SIZE, SIZE), dtype=torch.uint8, device=device),
        torch.randint(-30, 31, (1, num_groups, STRIDE - 1, 3, SIZE, SIZE), dtype=torch.int16, device=device),
    )
    check_same_answers(networks, clip)
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
        harness.publish(comparison, path)


def wake(model: nn.Module) -> None:
    """Give the fusions weights: new ones change nothing, and a network that skipped them would go unnoticed."""
    for fusion in model.fusions:
        nn.init.normal_(fusion.project_out.weight, std=0.05)


def check_same_answers(networks: dict[str, nn.Module], clip: tuple[Tensor, Tensor]) -> None:
    """Hold the answers in float64 against one another."""
    with torch.no_grad():
        answers = [copy.deepcopy(network).eval().double()(*clip, "ycc") for network in networks.values()]
    for answer in answers[1:]:
        torch.testing.assert_close(answer, answers[0], rtol=0, atol=1e-9)


def forward(network: nn.Module, clip: tuple[Tensor, Tensor], device: torch.device) -> None:
    """Answer one clip."""
    network.eval()
    with torch.inference_mode():
        network(*clip, "ycc")
    finish(device)


def train(network: nn.Module, clip: tuple[Tensor, Tensor], device: torch.device) -> None:
    """Go forward and back on one clip."""
    network.train()
    network.zero_grad()
    network(*clip, "ycc").logsumexp(dim=1).sum().backward()
    finish(device)


def finish(device: torch.device) -> None:
    """Wait for an accelerator."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What runs where."""
    parser.add_argument("--model", default="respike_r18")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on the CPU")


if __name__ == "__main__":
    main()
