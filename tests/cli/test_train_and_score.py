"""`respike train` and `respike score` on real shards, from bare commands to a table."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from respike.cli.main import main
from respike.data import open_shards
from respike.data.prepare import prepare
from respike.data.settings import PrepareSettings
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.seen import find_seen

from tests.conftest import listing_of

TRAIN = ["train", "--model", "respike_tiny", "--epochs", "1", "--image-size", "32", "--device", "cpu"]
RUN = "runs/respike_tiny-folder"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


class Shell:
    """Runs commands in one folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capsys = folder, capsys

    def __call__(self, *arguments: str) -> Answer:
        self._capsys.readouterr()
        code = 0
        try:
            main(list(arguments))
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Answer(code, *self._capsys.readouterr())


@pytest.fixture(scope="session")
def prepared(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with one data set and one trained run."""
    folder = tmp_path_factory.mktemp("work")
    prepare(listing_of(video_folder), folder / "shards/only", PrepareSettings(clip_length=8), num_workers=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        main([*TRAIN, "--quiet"])
    return folder


@pytest.fixture
def shell(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """A copy of it, so that no test sees another's runs."""
    shutil.copytree(prepared, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return Shell(tmp_path / "work", capsys)


def test_a_bare_train_leaves_a_whole_run(shell: Shell) -> None:
    names = {path.name for path in (shell.folder / RUN).iterdir()}
    wanted = {"best.safetensors", "best.json", "last.safetensors", "last.json", "history.jsonl", "config.json"}
    assert names == wanted | {"curves.png", "tensorboard"}


def test_train_tells_what_it_did_and_what_comes_next(shell: Shell) -> None:
    answer = shell(*TRAIN, "--data", "shards/only")
    assert answer.code == 0
    assert "respike score runs/respike_tiny-folder-2 --data shards/only" in answer.out
    assert "epoch 1/1" in answer.err


def test_train_says_its_result_as_json_and_nothing_else(shell: Shell) -> None:
    answer = shell(*TRAIN, "--json", "--out", "mine")
    told = json.loads(answer.out)
    assert (told["out"], told["best"], told["best_epoch"]) == ("mine", "mine/best.safetensors", 1)
    assert set(told["validation"]) >= {"top1", "video_top1", "loss"}
    assert answer.err == ""


def test_validation_is_held_out_by_source_and_the_evaluation_subset_stays_unseen(shell: Shell) -> None:
    told = json.loads(shell(*TRAIN, "--json", "--out", "mine").out)
    clips = open_shards("shards/only").clips
    _, spec = load_checkpoint(Path("mine"))
    # the batch holds all clips there are to train on, so that every one of their videos was seen
    seen = set(find_seen(spec.train_videos, [row.video for row in clips]))
    seen_groups = {row.group for row in clips if row.video in seen}
    of_seen_groups = [row for row in clips if row.subset == "train" and row.group in seen_groups]
    train_clips = [row for row in clips if row.subset == "train"]
    assert len(of_seen_groups) == told["num_train_clips"]
    assert len(train_clips) - len(of_seen_groups) == told["num_validation_clips"] > 0
    assert not seen & {row.video for row in clips if row.subset == "test"}


def test_score_gives_the_promised_json(shell: Shell) -> None:
    answer = shell("score", RUN, "--json")
    told = json.loads(answer.out)
    tested = open_shards("shards/only", "test")
    assert list(told) == ["clip", "video", "num_clips", "num_videos", "fingerprint", "forced"]
    assert (told["num_clips"], told["num_videos"]) == (len(tested), len({row.video for row in tested.clips}))
    assert (told["fingerprint"], told["forced"]) == (tested.spec.fingerprint, False)
    assert all(0 <= value <= 1 for kind in ("clip", "video") for value in told[kind].values())


def test_score_does_not_hang_on_the_batch_size(shell: Shell) -> None:
    first, second = (shell("score", RUN, "--json", "--batch-size", size).out for size in ("3", "32"))
    assert json.loads(first) == json.loads(second)


def test_score_prints_a_table_and_draws_the_confusion(shell: Shell) -> None:
    answer = shell("score", f"{RUN}/last.safetensors", "--confusion", "confusion.png")
    assert "top-1" in answer.out
    assert "videos" in answer.out
    assert (shell.folder / "confusion.png").read_bytes()[:4] == b"\x89PNG"


def test_score_on_videos_that_were_trained_on_is_refused_unless_forced(shell: Shell) -> None:
    refused = shell("score", RUN, "--subset", "train", "--json")
    assert (refused.code, refused.out) == (1, "")
    assert "were trained on" in refused.err
    assert "--force" in refused.err
    forced = shell("score", RUN, "--subset", "train", "--json", "--force")
    assert json.loads(forced.out)["forced"] is True


def test_force_marks_nothing_where_there_was_nothing_to_force(shell: Shell) -> None:
    assert json.loads(shell("score", RUN, "--json", "--force").out)["forced"] is False


def test_score_on_another_stride_is_refused_with_the_reason(shell: Shell, video_folder: Path) -> None:
    prepare(listing_of(video_folder), Path("shards/other"), PrepareSettings(stride=2, clip_length=8), num_workers=1)
    answer = shell("score", RUN, "--data", "shards/other")
    assert answer.code == 1
    assert "stride is 4 in the checkpoint and 2 in the data" in answer.err


def test_several_data_sets_are_an_error_that_lists_them(shell: Shell) -> None:
    shutil.copytree("shards/only", "shards/second")
    for command in (TRAIN, ["score", RUN]):
        answer = shell(*command)
        assert answer.code == 1
        assert "only, second" in answer.err


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([*TRAIN, "--batch-size", "1000"], "batch size of at most"),
        ([*TRAIN, "--model", "respike_r81"], "respike_r18"),
        ([*TRAIN, "--lr", "-1"], "learning_rate"),
        ([*TRAIN, "--optimizer", "adamm"], "adamw"),
        ([*TRAIN, "--image-size", "40"], "32"),
        ([*TRAIN, "--out", RUN], "holds a run already"),
        ([*TRAIN, "--data", "nowhere"], "nowhere"),
        (["score", "nowhere"], "no checkpoint"),
        (["score", RUN, "--subset", "val"], "no subset 'val'"),
        (["score", RUN, "--device", "gpu"], "'gpu'"),
    ],
)
def test_a_wrong_wish_ends_in_one_clear_line(shell: Shell, arguments: list[str], problem: str) -> None:
    before = sorted(path for path in shell.folder.rglob("*") if path.is_file())
    answer = shell(*arguments, "--quiet")
    assert (answer.code, answer.out) == (1, "")
    assert problem in answer.err
    assert "Traceback" not in answer.err
    kept = sorted(path for path in shell.folder.rglob("*") if path.is_file())
    assert kept == before


def test_train_under_torchrun_is_refused(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    answer = shell(*TRAIN)
    assert answer.code == 1
    assert "one process" in answer.err


@pytest.mark.parametrize("command", ["train", "score"])
def test_help_shows_an_example(shell: Shell, command: str) -> None:
    answer = shell(command, "--help")
    assert answer.code == 0
    assert f"  respike {command} " in answer.out.split("Examples:")[1]
