"""`respike train` and `respike score` on real shards, from bare commands to a table."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from multiprocessing import connection
from pathlib import Path

import pytest
import torch
from respike.cli.main import main
from respike.data import make_loader, open_shards
from respike.data.preparation import prepare
from respike.data.prepare_config import PrepareConfig
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.compatibility import find_seen
from respike.zoo.history import read_history
from respike.zoo.recipe import read_recipe
from respike.zoo.scoring import score

from tests.cli.conftest import Answer
from tests.conftest import listing_of
from tests.processes import ROOT, call_respike, start_together

TRAIN = ["train", "--model", "respike_tiny", "--epochs", "1", "--image-size", "32", "--device", "cpu"]
RUN = "runs/respike_tiny-folder"


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
    prepare(listing_of(video_folder), folder / "shards/only", PrepareConfig(clip_length=8), num_workers=1)
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
    wanted = {"best.safetensors", "last.safetensors", "history.jsonl", "config.json"}
    assert names == wanted | {"curves.png", "tensorboard", "recipe.toml", "request.json"}


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


def test_validation_clips_are_whole_sources_of_train(shell: Shell) -> None:
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


@pytest.fixture
def with_val(shell: Shell, video_folder: Path) -> str:
    """Shards of a set that has a `val` of its own: a third of its training videos, whole sources."""
    listing = listing_of(video_folder)
    videos = tuple(
        dataclasses.replace(video, subset="val") if video.subset == "train" and video.group.endswith("/1") else video
        for video in listing.videos
    )
    out = shell.folder / "shards/own-val"
    prepare(dataclasses.replace(listing, videos=videos), out, PrepareConfig(clip_length=8), num_workers=1)
    return str(out)


def test_a_val_subset_is_used_to_validate(shell: Shell, with_val: str) -> None:
    answer = shell(*TRAIN, "--data", with_val, "--out", "mine")
    train, val = (open_shards(with_val, subset) for subset in ("train", "val"))
    assert f"{len(train)} clips to train on, {len(val)} of val to validate" in answer.err
    assert f"{len(train)} trained on, {len(val)} of val" in answer.out
    model, spec = load_checkpoint(Path("mine"))
    # the batch holds all clips, so that every one of the videos was seen
    clips = train.clips + val.clips + open_shards(with_val, "test").clips
    assert set(find_seen(spec.train_videos, [row.video for row in clips])) == {row.video for row in train.clips}
    loader = make_loader(val, batch_size=4, training=False, image_size=32)
    checked = score(model, loader, num_classes=2).to_flat()
    assert spec.scores["loss"] == pytest.approx(checked["loss"], rel=1e-5)


def test_a_val_subset_for_scoring_is_not_used_to_validate(shell: Shell, video_folder: Path) -> None:
    listing = listing_of(video_folder)
    videos = [dataclasses.replace(each, subset="val" if each.subset == "test" else "train") for each in listing.videos]
    own = dataclasses.replace(listing, videos=tuple(videos), evaluation_subset="val")
    prepare(own, shell.folder / "shards/as-kinetics", PrepareConfig(clip_length=8), num_workers=1)
    told = json.loads(shell(*TRAIN, "--data", "shards/as-kinetics", "--out", "mine", "--json").out)
    held_out = open_shards("shards/as-kinetics", "train").hold_out(0.1)[1]
    assert told["num_validation_clips"] == len(held_out) > 0


def test_the_share_held_out_can_be_chosen(shell: Shell) -> None:
    told = json.loads(shell(*TRAIN, "--data", "shards/only", "--val-share", "0.5", "--out", "mine", "--json").out)
    parts = open_shards("shards/only", "train").hold_out(0.5)
    assert (told["num_train_clips"], told["num_validation_clips"]) == tuple(map(len, parts))
    assert len(parts[1]) > len(open_shards("shards/only", "train").hold_out(0.1)[1])


def test_without_validation_the_last_epoch_is_the_best(shell: Shell, with_val: str) -> None:
    for data, out in (("shards/only", "plain"), (with_val, "own-val")):
        answer = shell(*TRAIN, "--data", data, "--val-share", "0", "--epochs", "2", "--out", out, "--json")
        told = json.loads(answer.out)
        assert told["num_train_clips"] == len(open_shards(data, "train"))
        assert (told["num_validation_clips"], told["validation"], told["best_epoch"]) == (0, {}, 2)
        assert read_recipe(Path(out) / "recipe.toml").training.val_share == 0
    # a resume goes by what the run was begun with, and by nothing else
    refused = shell(*TRAIN[:3], "--resume", "--out", "plain", "--val-share", "0.1")
    assert refused.code == 1
    assert "val_share" in refused.err
    said = shell(*TRAIN, "--data", "shards/only", "--val-share", "0", "--out", "told")
    assert "none to validate, so the last epoch's checkpoint is what counts" in said.err
    assert "nothing was validated on" in said.out


def test_an_epoch_can_be_a_clip_of_each_video(shell: Shell) -> None:
    part = open_shards("shards/only", "train").hold_out(0.1)[0]
    num_videos = len({row.video for row in part.clips})
    answer = shell(*TRAIN, "--data", "shards/only", "--epoch-clips", "1", "--out", "mine")
    assert f"{len(part)} clips to train on ({num_videos} an epoch)" in answer.err
    # the default batch size is brought down to what an epoch has, so that all of it is one batch
    assert f"batch size {num_videos} instead of 32" in answer.err
    assert read_recipe(Path("mine/recipe.toml")).training.epoch_clips == 1
    refused = shell(*TRAIN[:3], "--resume", "--out", "mine", "--epoch-clips", "all")
    assert refused.code == 1
    assert "epoch_clips" in refused.err
    assert "a whole number from 1 or all" in shell(*TRAIN, "--epoch-clips", "some").err


def test_score_gives_the_promised_json(shell: Shell) -> None:
    answer = shell("score", RUN, "--json")
    told = json.loads(answer.out)
    tested = open_shards("shards/only", "test")
    assert list(told)[:6] == ["clip", "video", "num_clips", "num_videos", "fingerprint", "forced"]
    assert (told["num_clips"], told["num_videos"]) == (len(tested), len({row.video for row in tested.clips}))
    assert (told["fingerprint"], told["forced"]) == (tested.spec.fingerprint, False)
    assert all(0 <= value <= 1 for kind in ("clip", "video") for value in told[kind].values())


def test_scores_do_not_depend_on_the_batch_size(shell: Shell) -> None:
    first, second = (shell("score", RUN, "--json", "--batch-size", size).out for size in ("3", "32"))
    assert json.loads(first) == json.loads(second)


def test_score_prints_a_table_and_draws_the_confusion(shell: Shell) -> None:
    answer = shell("score", f"{RUN}/last.safetensors", "--confusion", "confusion.png")
    assert "top-1" in answer.out
    assert "videos" in answer.out
    assert (shell.folder / "confusion.png").read_bytes()[:4] == b"\x89PNG"


def test_training_videos_are_not_scored_unless_forced(shell: Shell) -> None:
    refused = shell("score", RUN, "--subset", "train", "--json")
    assert (refused.code, refused.out) == (1, "")
    assert "were trained on" in refused.err
    assert "force" in refused.err
    forced = shell("score", RUN, "--subset", "train", "--json", "--force")
    assert json.loads(forced.out)["forced"] is True


def test_force_marks_nothing_where_there_was_nothing_to_force(shell: Shell) -> None:
    assert json.loads(shell("score", RUN, "--json", "--force").out)["forced"] is False


def test_score_on_another_stride_is_refused_with_the_reason(shell: Shell, video_folder: Path) -> None:
    prepare(listing_of(video_folder), Path("shards/other"), PrepareConfig(stride=2, clip_length=8), num_workers=1)
    answer = shell("score", RUN, "--data", "shards/other")
    assert answer.code == 1
    assert "stride is 4 in the checkpoint and 2 in the data" in answer.err


def test_a_run_with_only_last_weights_names_them(shell: Shell) -> None:
    (shell.folder / RUN / "best.safetensors").unlink()
    answer = shell("score", RUN)
    assert answer.code == 1
    assert f"the run {RUN} has no best.safetensors yet, only last.safetensors" in answer.err
    assert f"name the weights of its last epoch: {RUN}/last.safetensors" in answer.err


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
        ([*TRAIN, "--recipe", "hmdb"], "hmdb51"),
        ([*TRAIN, "--set", "lr=-1"], "learning_rate is -1"),
        ([*TRAIN, "--set", "learning_rat=1"], "did you mean 'learning_rate'"),
        ([*TRAIN, "--set", "batch_size=many"], "a whole number"),
        ([*TRAIN, "--set", "epochs"], "NAME=VALUE"),
        ([*TRAIN, "--set", "fusion=5"], "choose from faithful, additive, none"),
        ([*TRAIN, "--sync-batchnorm"], "CUDA"),
        ([*TRAIN, "--init", "nowhere"], "no checkpoint"),
        (["train", "--resume", "--out", RUN, "--recipe", "modern"], "was started with"),
        # told though there is no data: a size needs none to be wrong
        ([*TRAIN, "--image-size", "65", "--data", "nowhere"], "a multiple of 32"),
        ([*TRAIN, "--out", RUN], "holds a run already"),
        ([*TRAIN, "--data", "nowhere"], "nowhere"),
        (["score", "nowhere"], "no checkpoint"),
        (["score", RUN, "--subset", "val"], "no subset 'val'"),
        (["score", RUN, "--device", "gpu"], "'gpu'"),
    ],
)
def test_a_wrong_setting_is_one_line_and_writes_nothing(shell: Shell, arguments: list[str], problem: str) -> None:
    before = sorted(path for path in shell.folder.rglob("*") if path.is_file())
    answer = shell(*arguments, "--quiet")
    assert (answer.code, answer.out) == (1, "")
    assert problem in answer.err
    assert "Traceback" not in answer.err
    kept = sorted(path for path in shell.folder.rglob("*") if path.is_file())
    assert kept == before


def test_two_processes_train_and_validate_one_network(shell: Shell) -> None:
    alone = json.loads(shell(*TRAIN, "--json", "--out", "alone").out)
    # fewer clips are held out than two full batches hold
    arguments = [*TRAIN, "--batch-size", "4", "--json", "--out", "both"]
    processes = start_together(call_respike, str(shell.folder), arguments)
    for process in processes:
        process.join(timeout=200)
    assert [process.exitcode for process in processes] == [0, 0], (shell.folder / "err-1").read_text()
    told = json.loads((shell.folder / "out-0").read_text())
    assert (told["out"], told["num_validation_clips"]) == ("both", alone["num_validation_clips"])
    assert [(shell.folder / name).read_text() for name in ("out-1", "err-1")] == ["", ""]
    checked = score_held_out(Path("both"), told["num_validation_clips"])
    assert told["validation"]["loss"] == pytest.approx(checked["loss"], rel=1e-5)
    assert told["validation"]["top1"] == checked["top1"]


def score_held_out(run: Path, num_clips: int) -> dict[str, float]:
    """The validation again, on one process."""
    model, spec = load_checkpoint(run)
    held_out = open_shards("shards/only", "train").hold_out(0.1)[1]
    assert len(held_out) == num_clips
    loader = make_loader(held_out, batch_size=2, training=False, image_size=spec.image_size)
    return score(model, loader, num_classes=2).to_flat()


def _launch(*options: str, out: str) -> subprocess.CompletedProcess[str]:
    """`accelerate launch` of a training, two processes of it asked for."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", *options, "-m", "respike"]
    unset = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    return subprocess.run(
        [*launch, *TRAIN, "--batch-size", "4", "--out", out],
        env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
    )


def _num_batches(num_processes: int) -> int:
    part = open_shards("shards/only", "train").hold_out(0.1)[0]
    return len(make_loader(part, batch_size=4, training=True, image_size=32, world_size=num_processes))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_accelerate_starts_two_processes_that_train_one_network(shell: Shell) -> None:
    # told of GPUs it starts as many as it was asked for; on which device they train is ours to say
    done = _launch("--multi_gpu", "--num_machines", "1", "--main_process_port", "0", out="both")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count(f"train: 0 of {_num_batches(2)} batches") == 1
    held_out = open_shards("shards/only", "train").hold_out(0.1)[1]
    checked = score_held_out(Path("both"), len(held_out))
    assert load_checkpoint(Path("both"))[1].scores["loss"] == pytest.approx(checked["loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_accelerate_that_starts_one_process_of_two_is_warned_of(shell: Shell) -> None:
    done = _launch("--cpu", out="alone")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"train: 0 of {_num_batches(1)} batches" in done.stderr
    assert "warning: `accelerate launch` seems to have been asked for several processes" in done.stderr


def test_a_loss_of_nan_is_one_error_of_two_processes(shell: Shell) -> None:
    arguments = [*TRAIN, "--batch-size", "2", "--lr", "1e30", "--optimizer", "sgd", "--out", "both"]
    processes = start_together(call_respike, str(shell.folder), arguments)
    # as torchrun does: once one process has gone, the other is ended
    connection.wait([process.sentinel for process in processes], timeout=200)
    for process in processes:
        process.terminate()
        process.join(timeout=60)
    said, other = ((shell.folder / f"err-{rank}").read_text() for rank in range(2))
    assert said.count("error: ") == said.count("hint: ") == 1
    assert "error: the loss became nan in epoch 1" in said
    assert "Traceback" not in said
    assert other == ""


def test_more_processes_than_clips_say_so_once(shell: Shell) -> None:
    arguments = [*TRAIN, "--batch-size", "500", "--out", "both"]
    processes = start_together(call_respike, str(shell.folder), arguments)
    for process in processes:
        process.join(timeout=100)
    assert [process.exitcode for process in processes] == [1, 1]
    assert "batch size of at most" in (shell.folder / "err-0").read_text()


def test_sigterm_saves_and_says_how_to_go_on(shell: Shell) -> None:
    """A real process, stopped while it trains, then resumed to the weights it would have had."""
    arguments = [*TRAIN, "--batch-size", "4", "--epochs", "2", "--save-every", "1", "--quiet", "--out"]
    (process,) = start_together(call_respike, str(shell.folder), [*arguments, "cut"], num_processes=1)
    state = shell.folder / "cut/state"
    while not list(state.glob("*.safetensors")) and process.is_alive():
        time.sleep(0.005)
    process.terminate()
    started = time.monotonic()
    process.join(timeout=60)
    assert time.monotonic() - started < 30
    said = (shell.folder / "err-0").read_text()
    assert process.exitcode == 143, said
    assert "warning: terminated: stopping after this batch" in said
    assert "error: terminated: training stopped in epoch" in said
    assert "respike train --resume --out cut" in said
    listed = shell("runs", "--root", "cut")
    assert listed.code == 0
    assert "/2 stopped" in listed.out
    # as many threads as before: sums may round otherwise on another number
    for command in (["train", "--resume", "--out", "cut", "--quiet"], [*arguments, "whole"]):
        (process,) = start_together(call_respike, str(shell.folder), command, num_processes=1)
        process.join(timeout=200)
        assert process.exitcode == 0
    for name in ("last", "best"):
        assert (shell.folder / f"cut/{name}.safetensors").read_bytes() == (
            shell.folder / f"whole/{name}.safetensors"
        ).read_bytes()


def test_resume_finds_the_only_run_that_is_not_done(shell: Shell) -> None:
    answer = shell("train", "--resume")
    assert (answer.code, answer.out) == (1, "")
    assert "no run under runs/" in answer.err
    assert f"can be resumed; complete: {RUN}" in answer.err


def test_a_complete_run_is_not_resumed_and_says_what_is_next(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in Path(RUN).rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        # no network is made for it
        patch.setattr("respike.zoo.models.create_variant", None)
        answer = shell("train", "--resume", "--out", RUN)
        assert shell("train", "--resume", "--out", RUN, "--quiet") == Answer(0, "", "")
    assert (answer.code, answer.err) == (0, "")
    (line,) = answer.out.splitlines()
    top1 = read_history(Path(RUN))[0].validation["top1"]
    assert line.startswith(
        f"{RUN} is complete: best epoch 1 of 1, top-1 {top1:.1%} held out, in {RUN}/best.safetensors; next: "
    )
    assert {path: path.read_bytes() for path in Path(RUN).rglob("*") if path.is_file()} == before
    for command in re.findall("`respike ([^`]+)`", line):
        assert shell(*command.split()).code == 0
    assert load_checkpoint(Path(RUN, "last.safetensors"))[1].epoch == 2


def test_a_complete_run_takes_more_epochs(shell: Shell) -> None:
    arguments = ["--save-every", "1", "--out", "runs/long"]
    assert shell(*TRAIN, "--epochs", "2", *arguments, "--quiet").code == 0
    longer = shell("train", "--resume", "--out", "runs/long", "--epochs", "4")
    assert longer.code == 0
    told = " ".join(longer.err.split())
    assert "4 epochs instead of 2: the learning rate continues at" in told
    assert "the value of a cosine schedule of 4 epochs at this point; the optimizer starts again" in told
    (listed,) = json.loads(shell("runs", "runs/long", "--json").out)
    assert (listed["status"], listed["num_epochs"], listed["wanted_epochs"]) == ("done", 4, 4)
    assert [record.epoch for record in read_history(Path("runs/long"))] == [1, 2, 3, 4]
    assert read_recipe(Path("runs/long/recipe.toml")).training.epochs == 4
    scored = json.loads(shell("score", "runs/long/last.safetensors", "--json").out)
    assert scored["provenance"]["epoch"] == 4
    # no more was asked for, and none is made
    assert "is complete: best epoch" in shell("train", "--resume", "--out", "runs/long").out
    fewer = shell("train", "--resume", "--out", "runs/long", "--epochs", "3")
    assert fewer.code == 1
    assert "it differs in epochs" in fewer.err


def test_resume_of_a_run_that_is_done_says_its_result_again(shell: Shell) -> None:
    first = json.loads(shell(*TRAIN, "--json", "--out", "mine").out)
    assert json.loads(shell("train", "--resume", "--out", "mine", "--json").out) == first
    changed = shell("train", "--resume", "--out", "mine", "--lr", "0.5")
    assert changed.code == 1
    assert "it differs in learning_rate" in changed.err


def test_the_resolved_recipe_is_saved_and_is_a_recipe(shell: Shell) -> None:
    extra = ["--lr", "0.004", "--set", "label_smoothing=0.1", "--set", "ema_decay=none", "--out"]
    assert shell(*TRAIN, "--recipe", "modern", "--init-backbone", "none", *extra, "one", "--quiet").code == 0
    recipe = read_recipe(shell.folder / "one/recipe.toml")
    assert (recipe.network, recipe.training.learning_rate, recipe.training.ema_decay) == ("respike_tiny", 0.004, None)
    assert recipe.training.mixup_alpha == read_recipe("modern").training.mixup_alpha
    assert shell("train", "--data", "shards/only", "--recipe", "one/recipe.toml", "--quiet", "--out", "two").code == 0
    assert Path("two/last.safetensors").read_bytes() == Path("one/last.safetensors").read_bytes()


def test_init_says_what_was_loaded_and_keeps_seen_videos(shell: Shell) -> None:
    answer = shell(*TRAIN, "--init", RUN, "--freeze-backbone", "1", "--out", "tuned")
    assert answer.code == 0
    assert f"from {RUN}: loaded: ANN branch, SNN branch, fusions, head" in answer.err
    before, after = (load_checkpoint(Path(name)) for name in (RUN, "tuned"))
    assert set(after[1].train_videos) >= set(before[1].train_videos)
    # it was frozen for the whole run, its norms' statistics as well
    for name, tensor in before[0].ann.state_dict().items():
        assert torch.equal(after[0].ann.state_dict()[name], tensor)
    assert not torch.equal(before[0].head.weight, after[0].head.weight)


def test_init_that_saw_the_test_videos_is_refused(shell: Shell, video_folder: Path) -> None:
    listing = listing_of(video_folder)
    swapped = {"train": "test", "test": "train"}
    videos = tuple(dataclasses.replace(video, subset=swapped[video.subset]) for video in listing.videos)
    prepare(dataclasses.replace(listing, videos=videos), Path("shards/swapped"), PrepareConfig(clip_length=8))
    arguments = [*TRAIN, "--data", "shards/swapped", "--init", RUN, "--out", "tuned"]
    refused = shell(*arguments)
    assert refused.code == 1
    assert "of the evaluation subset, the first" in refused.err
    assert "set force" in refused.err
    assert not Path("tuned").exists()
    assert "scores on them will mislead" in shell(*arguments, "--force").err


def test_runs_are_listed_and_compared(shell: Shell) -> None:
    assert shell(*TRAIN, "--lr", "0.004", "--out", "runs/other", "--quiet").code == 0
    Path("runs/broken").mkdir()
    Path("runs/broken/config.json").write_text("{")
    Path("runs/broken/history.jsonl").write_text("")
    listed = shell("runs", "--json")
    (first, second) = json.loads(listed.out)
    assert "left out: cannot read runs/broken/config.json" in listed.err
    assert (first["folder"], first["status"], first["num_epochs"]) == ("runs/other", "done", 1)
    assert second["best"]["firing_rates"]
    table = shell("runs", "runs/other", RUN).out
    assert "learning_rate" in table
    assert "0.004" in table
    assert "weight_decay" not in table
    assert "are the same" in shell("runs", RUN, RUN).out
    nowhere = shell("runs", "nowhere")
    assert (nowhere.code, nowhere.err.splitlines()[0]) == (1, "error: there is no run nowhere")


@pytest.mark.parametrize("command", ["train", "score", "recipes", "runs"])
def test_help_shows_an_example(shell: Shell, command: str) -> None:
    answer = shell(command, "--help")
    assert answer.code == 0
    assert f"  respike {command} " in answer.out.split("Examples:")[1]
