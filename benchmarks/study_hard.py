"""What fusions, branches, strides and recipes are worth on the demo's hard scenes: the study of docs/results.md.

    python benchmarks/study_hard.py chance tuned longer stride recipes --out ablations/hard --pictures docs/images

Each part is one or more `respike ablate` commands, which are printed and may be run by hand as well; what is finished
is kept, so that the same command goes on after any stop. Beside the tables of `respike ablate` it prints, for pairs of
settings, the differences of clip accuracy seed by seed: both of a pair have had the same clips in the same order.

- `chance`: both fusions, none, and each branch alone, all from chance.
- `tuned`: both fusions and none, from the two branches of `respike_tiny.demo16`, which know simpler scenes; what fuses
  them starts from chance.
- `longer`: the faithful fusion and none from the same branches, four times as long.
- `stride`: strides of 2 to 16 frames, from the same branches.
- `recipes`: the published settings, the same at a rate that suits so small a network, and the modern ones.
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
# what a recipe says, where it can be said of a small network, on a CPU and without mirroring
SMALL = ["network=respike_tiny", "init_backbone=none", "image_size=64", "batch_size=16", "amp=no", "device=cpu"]
SMALL += ["flip=false", "crop_scale=[0.8,1.0]"]
RECIPES = {
    "published": ["--recipe", "ucf101"],
    "published-fast": ["--recipe", "ucf101", "--set", "learning_rate=0.03"],
    "modern": ["--recipe", "modern"],
}
# t of a two-sided 95 % interval, by degrees of freedom
T95 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776}
Cells = list[dict[str, Any]]


def main() -> None:
    """Run the parts that are asked for and print what they tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--out", type=Path, default=Path("ablations/hard"))
    parser.add_argument("--seeds", type=int, help="trainings a setting  [default: 3 of fusions, 2 of the rest]")
    parser.add_argument("--pictures", type=Path, help="a folder for the pictures of the documentation")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        PARTS[part](arguments)


def study_chance(arguments: argparse.Namespace) -> None:
    """Both fusions, none, and each branch alone, from chance, on clips of eight frames."""
    out = arguments.out / "chance"
    tell_differences(ablate(out, [*HARD, *SHORT, *FUSIONS, *SINGLE], arguments.seeds or 3))
    if arguments.pictures is not None:
        draw_scenes(out / "shards" / "stride4-theta8", arguments.pictures / "hard.png")
        shutil.copy(out / "accuracy.png", arguments.pictures / "fusions.png")


def study_tuned(arguments: argparse.Namespace) -> None:
    """Both fusions and none from branches that know the plain scenes."""
    start = make_start(arguments.out)
    out = arguments.out / "tuned"
    tell_differences(
        ablate(out, [*HARD, *SHORT, *FUSIONS, *TUNED, "--epochs", "2", "--init", str(start)], arguments.seeds or 3)
    )
    if arguments.pictures is not None:
        shutil.copy(out / "accuracy.png", arguments.pictures / "fusions-tuned.png")


def study_longer(arguments: argparse.Namespace) -> None:
    """The faithful fusion and none, trained four times as long."""
    start = make_start(arguments.out)
    words = [*HARD, *SHORT, *LONGER, *TUNED, "--epochs", "8", "--init", str(start)]
    tell_differences(ablate(arguments.out / "longer", words, arguments.seeds or 1))


def study_stride(arguments: argparse.Namespace) -> None:
    """Strides of 2 to 16 frames, on clips of sixteen, by the fusion that `respike_tiny` has of its own."""
    start = make_start(arguments.out)
    out = arguments.out / "stride"
    axes = ["--videos", "8", "--stride", "2,4,8,16", "--epochs", "2"]
    ablate(out, [*HARD, *axes, *TUNED, "--init", str(start)], arguments.seeds or 2)
    if arguments.pictures is not None:
        shutil.copy(out / "accuracy_by_energy.png", arguments.pictures / "strides.png")


def study_recipes(arguments: argparse.Namespace) -> None:
    """Three ways to train the same network, from the same branches, for as many epochs."""
    start = make_start(arguments.out)
    settings = [word for each in SMALL for word in ("--set", each)]
    for name, recipe in RECIPES.items():
        words = [*HARD, *SHORT, "--epochs", "4", *recipe, *settings, "--init", str(start)]
        ablate(arguments.out / f"recipe-{name}", words, arguments.seeds or 2)


def make_start(out: Path) -> Path:
    """The two branches of `respike_tiny.demo16` as a network of their own, so that no fusion has a start on others."""
    path = out / "branches.safetensors"
    if not path.exists():
        model, spec = load_checkpoint("respike_tiny.demo16")
        branches = create_model("respike_tiny", num_classes=model.config.num_classes, branches="concat")
        needed = branches.state_dict()
        branches.load_state_dict({name: tensor for name, tensor in model.state_dict().items() if name in needed})
        save_checkpoint(path, branches, dataclasses.replace(spec, model=branches.config.to_json(), scores={}))
    return path


def ablate(out: Path, words: Sequence[str], num_seeds: int) -> Cells:
    """Run `respike ablate`, print its command and table; return its cells."""
    command = ["ablate", *words, "--seeds", str(num_seeds), "--out", str(out)]
    print("respike", shlex.join(command), flush=True)
    subprocess.run([sys.executable, "-m", "respike", *command, "--quiet"], check=True)
    print((out / "table.md").read_text(), flush=True)
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def tell_differences(cells: Cells) -> None:
    """Print how much better one setting is than another, in points of clip accuracy: each seed, mean, interval."""
    accuracies: dict[str, dict[int, float]] = {}
    for cell in cells:
        # branches alone fuse nothing either
        name = cell["fusion"] if cell["branches"] in ("hybrid", "concat") else cell["branches"]
        accuracies.setdefault(name, {})[cell["seed"]] = 100 * cell["scores"]["clip"]["top1"]
    for first, second in ((ADDITIVE, FAITHFUL), (FAITHFUL, "none"), (ADDITIVE, "none")):
        one, other = accuracies.get(first, {}), accuracies.get(second, {})
        points = [one[seed] - other[seed] for seed in sorted(one.keys() & other.keys())]
        if not points:
            continue
        told = f"{first} - {second}: {', '.join(f'{each:+.1f}' for each in points)}; {statistics.mean(points):+.1f}"
        if (freedom := len(points) - 1) in T95:
            told += f" ± {T95[freedom] * statistics.stdev(points) / math.sqrt(len(points)):.1f} points (95 % by t)"
        print(told, flush=True)


def draw_scenes(shards: Path, path: Path) -> None:
    """Draw two clips of the test part, key frames beside events."""
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
