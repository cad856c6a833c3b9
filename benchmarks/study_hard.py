"""Accuracy of fusions, branches, strides and recipes on the hard scenes of the demo: the study in docs/results.md.

    python benchmarks/study_hard.py chance tuned longer stride recipes --out ablations/hard --pictures docs/images

Each part runs one or more `respike ablate` commands and prints them. After a stop, run the same command again: finished
cells are kept. For pairs of settings it also prints the difference in clip accuracy for each seed. Both settings of a
pair see the same clips in the same order.

- `chance`: both fusions, none, and each branch alone, all from random weights.
- `tuned`: both fusions and none, from the two branches of `respike_tiny.demo16`, which were trained on simpler scenes.
  The fusion starts from random weights.
- `longer`: the faithful fusion and none from the same branches, with four times as many epochs.
- `stride`: strides of 2 to 16 frames, from the same branches.
- `recipes`: the published settings, the same with a learning rate for a small network, and the modern settings.
"""

import argparse
import dataclasses
import json
import math
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from respike.data import open_shards
from respike.workflows.clip_plots import contact_sheet
from respike.workflows.plots import save_figure
from respike.zoo import create_model, load_checkpoint
from respike.zoo.checkpoint import save_checkpoint

FAITHFUL, ADDITIVE = "faithful:4,2,1,1", "additive:4,2,1,1"
HARD = ["demo", "--scenes", "hard", "--figure", "clip_top1"]
SHORT = ["--videos", "12", "--clip-length", "8"]
LONGER = ["--fusion", f"{FAITHFUL},none"]
FUSIONS, SINGLE = ["--fusion", f"{FAITHFUL},{ADDITIVE},none"], ["--branches", "hybrid,ann,snn"]
TUNED = ["--set", "learning_rate=2e-3"]
# the settings of a recipe that change for a small network on a CPU, without mirroring
SMALL = ["network=respike_tiny", "init_backbone=none", "image_size=64", "batch_size=16", "amp=no", "device=cpu"]
SMALL += ["flip=false", "crop_scale=[0.8,1.0]"]
RECIPES = {
    "published": ["--recipe", "ucf101"],
    "published-fast": ["--recipe", "ucf101", "--set", "learning_rate=0.03"],
    "modern": ["--recipe", "modern"],
}
# Student's t of a two-sided 95 % interval, by degrees of freedom
T95 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776}
Cells = list[dict[str, Any]]


def main() -> None:
    """Run the given parts and print their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--out", type=Path, default=Path("ablations/hard"), help="folder for the results")
    parser.add_argument(
        "--seeds", type=int, help="trainings of each setting  [default: 3 for fusions, 2 for strides and recipes]"
    )
    parser.add_argument("--pictures", type=Path, help="folder for the pictures of the documentation")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        PARTS[part](arguments)


def study_chance(arguments: argparse.Namespace) -> None:
    """Train both fusions, none, and each branch alone from random weights, on clips of eight frames."""
    out = arguments.out / "chance"
    print_differences(ablate(out, [*HARD, *SHORT, *FUSIONS, *SINGLE], arguments.seeds or 3))
    if arguments.pictures is not None:
        draw_scenes(out / "shards" / "stride4-theta8", arguments.pictures / "hard.png")
        shutil.copy(out / "accuracy.png", arguments.pictures / "fusions.png")


def study_tuned(arguments: argparse.Namespace) -> None:
    """Train both fusions and none from branches that were trained on the plain scenes."""
    start = make_branches(arguments.out)
    out = arguments.out / "tuned"
    print_differences(
        ablate(out, [*HARD, *SHORT, *FUSIONS, *TUNED, "--epochs", "2", "--init", str(start)], arguments.seeds or 3)
    )
    if arguments.pictures is not None:
        shutil.copy(out / "accuracy.png", arguments.pictures / "fusions-tuned.png")


def study_longer(arguments: argparse.Namespace) -> None:
    """Train the faithful fusion and none with four times as many epochs."""
    start = make_branches(arguments.out)
    words = [*HARD, *SHORT, *LONGER, *TUNED, "--epochs", "8", "--init", str(start)]
    print_differences(ablate(arguments.out / "longer", words, arguments.seeds or 1))


def study_stride(arguments: argparse.Namespace) -> None:
    """Train with strides of 2 to 16 frames on clips of sixteen, with the default fusion of `respike_tiny`."""
    start = make_branches(arguments.out)
    out = arguments.out / "stride"
    axes = ["--videos", "8", "--stride", "2,4,8,16", "--epochs", "2"]
    ablate(out, [*HARD, *axes, *TUNED, "--init", str(start)], arguments.seeds or 2)
    if arguments.pictures is not None:
        shutil.copy(out / "accuracy_by_energy.png", arguments.pictures / "strides.png")


def study_recipes(arguments: argparse.Namespace) -> None:
    """Train the same network with three recipes, from the same branches, for the same number of epochs."""
    start = make_branches(arguments.out)
    settings = [word for each in SMALL for word in ("--set", each)]
    for name, recipe in RECIPES.items():
        words = [*HARD, *SHORT, "--epochs", "4", *recipe, *settings, "--init", str(start)]
        ablate(arguments.out / f"recipe-{name}", words, arguments.seeds or 2)


def make_branches(out: Path) -> Path:
    """Write the two branches of `respike_tiny.demo16` without its fusion, so that no fusion has an advantage."""
    path = out / "branches.safetensors"
    if not path.exists():
        model, spec = load_checkpoint("respike_tiny.demo16")
        branches = create_model("respike_tiny", num_classes=model.config.num_classes, branches="concat")
        needed = branches.state_dict()
        branches.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in needed})
        save_checkpoint(path, branches, dataclasses.replace(spec, model=branches.config.to_json(), scores={}))
    return path


def ablate(out: Path, words: Sequence[str], num_seeds: int) -> Cells:
    """Run `respike ablate`, print the command and its table, return its cells."""
    command = ["ablate", *words, "--seeds", str(num_seeds), "--out", str(out)]
    print("respike", shlex.join(command), flush=True)
    subprocess.run([sys.executable, "-m", "respike", *command, "--quiet"], check=True)
    print((out / "table.md").read_text(), flush=True)
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def print_differences(cells: Cells) -> None:
    """Print differences between settings in points of clip accuracy: of each seed, their mean, and its interval."""
    accuracies: dict[str, dict[int, float]] = {}
    for cell in cells:
        # a single branch has no fusion either, so use its own name
        name = cell["fusion"] if cell["branches"] in ("hybrid", "concat") else cell["branches"]
        accuracies.setdefault(name, {})[cell["seed"]] = 100 * cell["scores"]["clip"]["top1"]
    for first, second in ((ADDITIVE, FAITHFUL), (FAITHFUL, "none"), (ADDITIVE, "none")):
        one, other = accuracies.get(first, {}), accuracies.get(second, {})
        points = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
        if not points:
            continue
        line = f"{first} - {second}: {', '.join(f'{each:+.1f}' for each in points)}; {statistics.mean(points):+.1f}"
        if (freedom := len(points) - 1) in T95:
            line += f" ± {T95[freedom] * statistics.stdev(points) / math.sqrt(len(points)):.1f} points (95 % by t)"
        print(line, flush=True)


def draw_scenes(shards: Path, path: Path) -> None:
    """Draw key frames and events of two test clips."""
    test = open_shards(shards, "test")
    names = [test.spec.classes[row.label] for row in test.clips]
    save_figure(contact_sheet([test[names.index(name)] for name in ("amber-left", "azure-rocking")]), path)


PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "chance": study_chance,
    "tuned": study_tuned,
    "longer": study_longer,
    "stride": study_stride,
    "recipes": study_recipes,
}

if __name__ == "__main__":
    main()
