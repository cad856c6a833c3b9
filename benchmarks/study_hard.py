"""What fusions, branches, strides and recipes are worth on the demo's hard scenes: the study of docs/results.md.

    python benchmarks/study_hard.py fusion stride recipes --out ablations/hard --pictures docs/images

Each part is one or more `respike ablate` commands, which are printed and may be run by hand as well; what is finished
is kept, so that the same command goes on after any stop. Beside the tables of `respike ablate` it prints, for pairs of
settings, the differences of clip accuracy seed by seed: both of a pair have had the same clips in the same order.
"""

import argparse
import json
import math
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from respike.cli.sheet import draw_sheet, save_figure
from respike.data import open_shards

FAITHFUL, ADDITIVE = "faithful:4,2,1,1", "additive:4,2,1,1"
HARD = ["demo", "--scenes", "hard", "--figure", "clip_top1"]
# what a recipe says, where it can be said of a small network that starts from chance, on a CPU and without mirroring
SMALL = ["network=respike_tiny", "init_backbone=none", "image_size=64", "batch_size=16", "amp=no", "device=cpu"]
SMALL += ["flip=false", "crop_scale=[0.8,1.0]"]
FROM_CHANCE = ["backbone_lr_scale=1.0", "freeze_backbone_epochs=0"]
RECIPES = {
    "published": ["--recipe", "ucf101"],
    "published-fast": ["--recipe", "ucf101", "--set", "learning_rate=0.03"],
    "modern": ["--recipe", "modern", *(word for each in FROM_CHANCE for word in ("--set", each))],
}
# t of a two-sided 95 % interval, by degrees of freedom
T95 = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776}


def main() -> None:
    """Run the parts that are asked for and print what they tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=("fusion", "stride", "recipes"))
    parser.add_argument("--out", type=Path, default=Path("ablations/hard"))
    parser.add_argument("--seeds", type=int, help="trainings a setting; 3 of fusions, 2 of the rest")
    parser.add_argument("--pictures", type=Path, help="a folder for the pictures of the documentation")
    arguments = parser.parse_args()
    for part in arguments.parts:
        {"fusion": study_fusion, "stride": study_stride, "recipes": study_recipes}[part](arguments)


def study_fusion(arguments: argparse.Namespace) -> None:
    """Both fusions, none, and each branch alone, on clips of eight frames."""
    out = arguments.out / "fusion"
    axes = ["--fusion", FAITHFUL, ADDITIVE, "none", "--branches", "hybrid", "ann", "snn"]
    cells = ablate(out, [*HARD, "--videos", "12", "--clip-length", "8", *axes], arguments.seeds or 3)
    pairs = (("hybrid", ADDITIVE), ("hybrid", FAITHFUL)), (("hybrid", FAITHFUL), ("concat", "none"))
    for first, second in (*pairs, (("hybrid", ADDITIVE), ("concat", "none"))):
        print(difference(cells, first, second))
    if arguments.pictures is not None:
        test = open_shards(out / "shards" / "stride4-theta8", "test")
        wanted = {"amber-left": None, "azure-rocking": None}
        for number, row in enumerate(test.clips):
            name = test.spec.classes[row.label]
            if name in wanted and wanted[name] is None:
                wanted[name] = number
        save_figure(draw_sheet([test[number] for number in wanted.values()]), arguments.pictures / "hard.png")
        shutil.copy(out / "accuracy.png", arguments.pictures / "fusions.png")


def study_stride(arguments: argparse.Namespace) -> None:
    """Strides of 2 to 16 frames, on clips of sixteen, by the fusion that `respike_tiny` has of its own."""
    out = arguments.out / "stride"
    ablate(out, [*HARD, "--videos", "8", "--stride", "2", "4", "8", "16"], arguments.seeds or 2)
    if arguments.pictures is not None:
        shutil.copy(out / "accuracy_by_energy.png", arguments.pictures / "strides.png")


def study_recipes(arguments: argparse.Namespace) -> None:
    """The published settings, the same at a rate that suits a start from chance, and the modern ones."""
    settings = [word for each in SMALL for word in ("--set", each)]
    for name, recipe in RECIPES.items():
        print(f"== {name}")
        words = [*HARD, "--videos", "12", "--clip-length", "8", "--epochs", "4", *recipe, *settings]
        ablate(arguments.out / f"recipe-{name}", words, arguments.seeds or 2)


def ablate(out: Path, words: Sequence[str], num_seeds: int) -> list[dict[str, Any]]:
    """Run `respike ablate`, print its command and table; return its cells."""
    command = ["ablate", *words, "--seeds", str(num_seeds), "--out", str(out)]
    print("respike", shlex.join(command), flush=True)
    subprocess.run([sys.executable, "-m", "respike", *command, "--quiet"], check=True)
    print((out / "table.md").read_text(), flush=True)
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def difference(cells: Sequence[dict[str, Any]], first: tuple[str, str], second: tuple[str, str]) -> str:
    """How much better the first setting is than the second, in points of clip accuracy: each seed, mean, interval."""
    one, other = (
        {
            cell["seed"]: cell["scores"]["clip"]["top1"]
            for cell in cells
            if (cell["branches"], cell["fusion"]) == setting
        }
        for setting in (first, second)
    )
    points = [100 * (one[seed] - other[seed]) for seed in sorted(one.keys() & other.keys())]
    told = f"{' '.join(first)} - {' '.join(second)}: {', '.join(f'{each:+.1f}' for each in points)}"
    told += f"; mean {statistics.mean(points):+.1f}"
    if (freedom := len(points) - 1) in T95:
        half = T95[freedom] * statistics.stdev(points) / math.sqrt(len(points))
        told += f" ± {half:.1f} points (95 % by t)"
    return told


if __name__ == "__main__":
    main()
