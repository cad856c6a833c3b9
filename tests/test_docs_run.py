"""Run the command lines in the code blocks of README and docs, page by page, on small data and small networks.

`DROPPED` and `ADDED` change the lines, so that they are fast and need no network connection. A line that is not run
must be in `NOT_RUN` with a reason.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import call  # noqa: F401 this is a fixture
from tests.conftest import REAL_CLIPS, moving_square
from tests.test_readme import ROOT, TEXTS, command_lines

# pages in the order in which they run; later pages use files of earlier ones
RUN = [
    "first-data-set.md",
    "first-training.md",
    "your-own-data.md",
    "scoring.md",
    "training.md",
    "explain.md",
    "zoo.md",
    "energy.md",
]
# fragment of a line → why it is not run here, and the test that covers it
NOT_RUN = {
    "--download": "downloads gigabytes; tests/cli/test_download.py downloads from a local server",
    "kinetics400": "needs Kinetics-400 or a cluster; tests/data/test_prepare_on_ray.py uses a small cluster",
    "s3://": "needs a bucket; tests/data/test_remote_output.py uses a local store",
    "torchrun": "needs GPUs; tests/zoo/test_processes.py trains with several processes",
    "--recipe hmdb51": "needs HMDB51; the line for UCF101 is run",
    "respike ablate": "takes hours; tests/cli/test_ablate.py runs small grids",
    "train --resume": "needs a stopped training; tests/cli/test_train_and_score.py stops and resumes one",
    "zoo import": "needs a checkpoint of the published code; tests/cli/test_zoo.py makes one with random weights",
    "imported/": "needs the result of `zoo import`",
    "hf://": "needs the hub; tests/zoo/test_publishing.py uploads to a local store",
    "export": "takes minutes; tests/cli/test_export.py writes both formats",
    "energy respike_r": "takes minutes at full size; tests/cli/test_energy.py counts small networks",
    "runs/ucf101-split2": "needs three trainings; tests/cli/test_score.py scores several checkpoints",
}
DROPPED = (" --init-backbone imagenet", " --at 100,80")
_SMALL = "--model respike_tiny --image-size 32 --epochs 1 --batch-size 4 --init-backbone none --amp no"
ADDED = {"train": _SMALL, "demo": "--videos 1 --epochs 1", "prepare": "--short-side 48"}
_REAL_CLIP_OF = {"Archery": "apply_eye_makeup.avi", "Biking": "flipping_pancake.mkv"}


def blocks(path: Path) -> list[str]:
    """Return the command lines in the code blocks of a page."""
    fences = re.findall(r"^```\w*\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)
    return command_lines("\n".join(f"```\n{fence}```" for fence in fences))


def reason_of(line: str) -> str | None:
    return next((reason for fragment, reason in NOT_RUN.items() if fragment in line), None)


def test_every_line_is_run_or_has_a_reason():
    pages = {path: blocks(path) for path in TEXTS}
    forgotten = [
        line for path, lines in pages.items() if path.name not in RUN for line in lines if reason_of(line) is None
    ]
    assert not forgotten, "run these lines, or add a reason to NOT_RUN"
    all_lines = [line for lines in pages.values() for line in lines]
    assert not [fragment for fragment in NOT_RUN if not any(fragment in line for line in all_lines)]
    num_run = sum(reason_of(line) is None for line in all_lines)
    assert num_run >= 20


def test_every_reason_names_a_test_file_that_exists():
    named = {path for reason in NOT_RUN.values() for path in re.findall(r"tests/\S+\.py", reason)}
    assert named
    assert not [path for path in sorted(named) if not (ROOT / path).is_file()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder with a small UCF101 and class folders of videos, as the pages expect them."""
    from respike.data.video_writer import write_video

    root = tmp_path / "data" / "ucf101"
    lists = {"train": [], "test": []}
    for label, name in enumerate(_REAL_CLIP_OF):
        for group in range(1, 6):
            path = root / "UCF-101" / name / f"v_{name}_g{group:02d}_c01.avi"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_video(path, iter(moving_square(40, seed=10 * label + group)), codec="mpeg4")
            lists["train" if group > 1 else "test"].append(f"{name}/{path.name}")
            copy = tmp_path / "videos" / name / f"{group}.avi"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
        if (real := REAL_CLIPS / _REAL_CLIP_OF[name]).exists():
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


def make_small(line: str) -> tuple[list[str], str]:
    """Return the words of a line with small settings, and the file for its output, or an empty text."""
    for dropped in DROPPED:
        line = line.replace(dropped, "")
    line, _, target = line.partition(" > ")
    words = shlex.split(line, comments=True)[1:]
    return [*words, *ADDED.get(words[0], "").split()], target


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_lines_of_the_pages_succeed_one_after_another(folder, call):  # noqa: F811
    for name in RUN:
        (path,) = [path for path in TEXTS if path.name == name and path.parent.name != "api"]
        for line in blocks(path):
            if reason_of(line):
                if "prepare ucf101 --download --stride 4" in line:
                    assert call("prepare", "ucf101", "--stride", 4, "--short-side", 48).code == 0
                continue
            words, target = make_small(line)
            answer = call(*words)
            assert answer.code == 0, f"{name}: {line}\n{answer.err}"
            if target:
                Path(target.strip()).write_text(answer.out)
        if name == "first-training.md":
            # other pages use other names for this training
            for other in ("runs/respike_r18-ucf101-split1", "runs/k400"):
                shutil.copytree("runs/ucf101", other)
    made = ["shards/ucf101-split1/dataset.json", "sheet.png", "demo/report.html", "runs/tiny/best.safetensors"]
    made += ["faults.jsonl", "runs/mine/curves.png", "k400.safetensors", "confusion.png", "why/attention.png"]
    assert not [each for each in made if not (folder / each).exists()]


def test_a_line_without_reason_is_found(monkeypatch):
    page = ROOT / "docs" / "scale.md"
    assert [line for line in blocks(page) if "kinetics400" in line]
    monkeypatch.delitem(NOT_RUN, "kinetics400")
    with pytest.raises(AssertionError, match="run these lines"):
        test_every_line_is_run_or_has_a_reason()
