"""Docs in earnest: the command lines of the pages' code blocks are run, page by page, on small data and small networks.

What a page gives to type is run as it stands there, but for `DROPPED` and `ADDED`, which make it small and keep it off
the network. A line that is not run stands in `NOT_RUN` with its reason, so that none is forgotten.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import call  # noqa: F401 a fixture
from tests.conftest import REAL_CLIPS, moving_square
from tests.test_readme import ROOT, TEXTS, command_lines

# pages in an order in which each finds what those before it made
RUN = [
    "first-data-set.md",
    "first-training.md",
    "your-own-data.md",
    "scoring.md",
    "training.md",
    "explain.md",
    "zoo.md",
]
RUN += ["energy.md"]
# fragment of a line → why it is not run here
NOT_RUN = {
    "--download": "fetches gigabytes; tests/cli/test_download.py fetches from a server of its own",
    "kinetics400": "needs Kinetics-400 or a cluster; tests/data/test_prepare_on_ray.py has a small one",
    "s3://": "needs a bucket; tests/data/remote has a store of its own",
    "torchrun": "needs GPUs; tests/zoo/test_processes.py trains on several processes",
    "--recipe hmdb51": "needs HMDB51; the same line for UCF101 is run",
    "respike ablate": "hours; tests/cli/test_ablate.py runs small grids",
    "train --resume": "needs a training that was stopped; tests/cli/test_train_and_score.py stops one",
    "zoo import": "needs a checkpoint of the published code; tests/cli/test_zoo.py draws one",
    "imported/": "needs what the line above makes",
    "hf://": "needs the hub; tests/zoo/test_publish.py uploads to a store of its own",
    "export": "minutes; tests/cli/test_export.py writes both formats",
    "energy respike_r": "minutes at full size; tests/cli/test_energy.py counts small networks",
    "runs/ucf101-split2": "needs three trainings; tests/cli/test_score.py scores several",
}
DROPPED = (" --init-backbone imagenet", " --at 100,80")
_SMALL = "--model respike_tiny --image-size 32 --epochs 1 --batch-size 4 --init-backbone none --amp no"
ADDED = {"train": _SMALL, "demo": "--videos 1 --epochs 1", "prepare": "--short-side 48"}
_STANDS_IN = {"Archery": "apply_eye_makeup.avi", "Biking": "flipping_pancake.mkv"}


def blocks(path: Path) -> list[str]:
    """The command lines of a page's code blocks."""
    fences = re.findall(r"^```\w*\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    return command_lines("\n".join(f"```\n{fence}```" for fence in fences))


def reason_of(line: str) -> str | None:
    return next((reason for fragment, reason in NOT_RUN.items() if fragment in line), None)


def test_every_line_is_run_or_has_a_reason():
    pages = {path: blocks(path) for path in TEXTS}
    left = [line for path, lines in pages.items() if path.name not in RUN for line in lines if reason_of(line) is None]
    assert not left, "run these, or say why not"
    told = [line for lines in pages.values() for line in lines]
    assert not [fragment for fragment in NOT_RUN if not any(fragment in line for line in told)]
    num_run = sum(reason_of(line) is None for line in told)
    assert num_run >= 20


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a small UCF101 and class folders of videos, as the pages want them."""
    from respike.data.video_writer import write_video

    root = tmp_path / "data" / "ucf101"
    lists = {"train": [], "test": []}
    for label, name in enumerate(_STANDS_IN):
        for group in range(1, 6):
            path = root / "UCF-101" / name / f"v_{name}_g{group:02d}_c01.avi"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, iter(moving_square(40, seed=10 * label + group)), codec="mpeg4")
            lists["train" if group > 1 else "test"].append(f"{name}/{path.name}")
            copy = tmp_path / "videos" / name / f"{group}.avi"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        if (real := REAL_CLIPS / _STANDS_IN[name]).exists():
            shutil.copy(real, tmp_path / "videos" / name)
    (root / "ucfTrainTestlist").mkdir()
    (root / "ucfTrainTestlist" / "classInd.txt").write_text("1 Archery\n2 Biking\n")
    for subset, names in lists.items():
        (root / "ucfTrainTestlist" / f"{subset}list01.txt").write_text("\n".join(names))
    rows = [
        f"{path.relative_to(tmp_path / 'videos')},{path.parent.name}" for path in (tmp_path / "videos").rglob("*.*")
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]))
    for name in ("holiday.mp4", "match.mkv"):
        write_video(tmp_path / name, iter(moving_square(40, seed=3)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def smaller(line: str) -> tuple[list[str], str]:
    """The words of a line, made small, and the file that its output goes to, if it does."""
    for dropped in DROPPED:
        line = line.replace(dropped, "")
    line, _, target = line.partition(" > ")
    words = shlex.split(line, comments=True)[1:]
    return [*words, *ADDED.get(words[0], "").split()], target


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_pages_lines_do_what_they_say_one_after_another(place, call):  # noqa: F811
    for name in RUN:
        (path,) = [path for path in TEXTS if path.name == name and path.parent.name != "api"]
        for line in blocks(path):
            if reason_of(line):
                if "prepare ucf101 --download --stride 4" in line:
                    assert call("prepare", "ucf101", "--stride", 4, "--short-side", 48).code == 0
                continue
            words, target = smaller(line)
            answer = call(*words)
            assert answer.code == 0, f"{name}: {line}\n{answer.err}"
            if target:
                Path(target.strip()).write_text(answer.out)
        if name == "first-training.md":
            # other pages call the same training by other names
            for other in ("runs/respike_r18-ucf101-split1", "runs/k400"):
                shutil.copytree("runs/ucf101", other)
    made = ["shards/ucf101-split1/dataset.json", "sheet.png", "demo/report.html", "runs/tiny/best.safetensors"]
    made += ["faults.jsonl", "runs/mine/curves.png", "k400.safetensors", "confusion.png", "why/attention.png"]
    assert not [each for each in made if not (place / each).exists()]


def test_a_line_that_nobody_runs_is_found(monkeypatch):
    page = ROOT / "docs" / "scale.md"
    assert [line for line in blocks(page) if "kinetics400" in line]
    monkeypatch.delitem(NOT_RUN, "kinetics400")
    with pytest.raises(AssertionError, match="run these"):
        test_every_line_is_run_or_has_a_reason()
