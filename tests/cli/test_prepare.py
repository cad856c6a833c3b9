"""`respike prepare` and `respike index`: what reaches the shards, and what is printed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from respike.cli import options
from respike.data import open_shards
from respike.data.datasets import DATASETS
from respike.data.preparation import PrepareConfig
from respike.data.video_writer import write_video

from tests.conftest import moving_square


@pytest.fixture
def here(tmp_path, video_folder, monkeypatch):
    """A working folder with the small videos and a broken one under data/folder."""
    for path in sorted(video_folder.rglob("*.mp4")):
        target = tmp_path / "data" / "folder" / path.relative_to(video_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    (tmp_path / "data" / "folder" / "wave" / "broken.mp4").write_bytes(b"no video at all")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_option_has_all_data_sets():
    assert sorted(options.DATASETS) == sorted(DATASETS)


@pytest.mark.parametrize("command", ["prepare", "check"])
def test_a_mistyped_data_set_suggests_the_nearest(here, call, command):
    answer = call(command, "UCF10")
    assert answer.code == 2
    assert "Did you mean 'ucf101'?" in answer.err
    Path("my videos").mkdir()
    assert "`folder --root 'my videos'`" in call(command, "my videos").err.replace("\n", " ")
    unlike = call(command, "qqqq")
    assert "hmdb51" in unlike.err
    assert "mean" not in unlike.err


def test_unfinished_shards_say_what_to_do(here, call):
    Path("shards/begun/.respike").mkdir(parents=True)
    assert "run it again to go on" in call("inspect", "shards/begun").err
    Path("shards/begun/.respike").rmdir()
    assert "that `respike prepare` wrote" in call("inspect", "shards/begun").err
    assert call("prepare", "folder", "--workers", 1, "--quiet").code == 0
    for command in ("inspect", "verify"):
        assert "choose from shards/folder" in call(command, "shards").err


def test_a_bare_command_finds_its_root_and_names_its_out(here, call):
    answer = call("prepare", "folder", "--workers", 1, "--threshold", 6, "--json")
    assert answer.code == 0, answer.err
    facts = json.loads(answer.out)
    assert answer.err == ""
    assert (facts["out"], facts["listed"], facts["written"], facts["skipped"]) == ("shards/folder", 13, 12, 1)
    assert facts["skipped_by_stage"] == {"open": 1}
    dataset = open_shards("shards/folder")
    assert facts["num_clips"] == len(dataset)
    assert facts["num_bytes"] == sum(path.stat().st_size for path in Path("shards/folder").glob("*.tar"))
    assert dataset.spec.settings == PrepareConfig(threshold=6).to_json()


def test_every_option_reaches_the_settings(here, call):
    given = {"stride": 2, "clip_length": 8, "clip_step": 4, "frame_stride": 2, "short_side": 32, "threshold": 5}
    given |= {"color": "rgb", "key_quality": 80, "videos_per_shard": 3, "seed": 7}
    options = [part for name, value in given.items() for part in ("--" + name.replace("_", "-"), value)]
    assert call("prepare", "folder", "--workers", 1, "--quiet", "--out", "a", *options).code == 0
    assert open_shards("a").spec.settings == PrepareConfig(**given).to_json()
    uniform = ("--sampling", "uniform", "--clips-per-video", 2, "--eval-clips", 3)
    assert call("prepare", "folder", "--workers", 1, "--quiet", "--out", "b", *uniform).code == 0
    chosen = PrepareConfig(sampling="uniform", clips_per_video=2, eval_clips=3)
    assert open_shards("b").spec.settings == chosen.to_json()
    assert chosen.to_json()["eval_clips"] == 3


def test_the_report_names_skipped_videos_and_what_is_next(here, call):
    answer = call("prepare", "folder", "--workers", 1, "--out", "my shards")
    assert answer.code == 0
    assert "12 written, 1 skipped of 13" in answer.out
    assert "skipped wave/broken.mp4: open: " in answer.out
    assert answer.out.splitlines()[-1] == "next: respike train --data 'my shards'"
    assert answer.err.startswith("prepare: 0 of 13 videos\n")
    again = call("prepare", "folder", "--workers", 1, "--out", "my shards")
    assert "all was done before" in again.out


def test_the_report_names_speed_and_the_slowest(here, call):
    answer = call("prepare", "folder", "--workers", 1)
    assert " frames/s, " in answer.out
    assert " × real time" in answer.out
    slowest = next(line for line in answer.out.splitlines() if line.startswith("slowest"))
    assert slowest.count(".mp4 ") == 3
    assert "slowest" not in call("prepare", "folder", "--workers", 1).out


def test_scripts_learn_the_same_facts(here, call):
    facts = json.loads(call("prepare", "folder", "--workers", 1, "--json").out)
    assert facts["frames_per_second"] > 0
    assert facts["videos_per_second"] > 0
    assert facts["times_real_time"] > 0
    assert len(facts["slowest"]) == 5
    assert facts["slowest"][0]["seconds"] >= facts["slowest"][-1]["seconds"]
    assert facts["next"] == "respike train --data shards/folder"
    log = json.loads(Path("shards/folder/.respike/runs.jsonl").read_text())
    assert log["num_built"] == facts["num_built"]


def test_parts_are_joined_by_index(here, call):
    common = ("folder", "--workers", 1, "--videos-per-shard", 4, "--out", "parts")
    facts = json.loads(call("prepare", *common, "--part", "1/2", "--json").out)
    assert (facts["part"], facts["next"]) == ("1/2", "respike index parts, once all 2 parts are done")
    early = call("index", "parts")
    assert early.code == 1
    assert "shards of parts are not finished" in early.err
    assert "prepare these parts: 2/2" in early.err
    answer = call("prepare", *common, "--part", "2/2")
    assert answer.out.splitlines()[0].split() == ["part", "2/2"]
    joined = call("index", "parts")
    assert (joined.code, joined.out.splitlines()[-1]) == (0, "next: respike train --data parts")
    assert json.loads(call("index", "parts", "--json").out)["listed"] == 13
    assert call("index", "parts", "--quiet").out == ""
    assert call("prepare", "folder", "--workers", 1, "--videos-per-shard", 4, "--out", "whole").code == 0
    files = [path.name for path in sorted(Path("whole").iterdir()) if path.is_file()]
    assert [(Path("whole") / name).read_bytes() for name in files] == [
        (Path("parts") / name).read_bytes() for name in files
    ]


def test_other_settings_are_refused_without_overwrite(here, call):
    common = ("prepare", "folder", "--workers", 1)
    assert call(*common).code == 0
    refused = call(*common, "--threshold", 9)
    assert refused.code == 1
    assert "threshold 8 → 9" in refused.err
    assert "use overwrite" in refused.err
    assert "another output folder" in refused.err
    assert call(*common, "--threshold", 9, "--overwrite").code == 0
    assert open_shards("shards/folder").spec.settings["threshold"] == 9
    assert "all was done before" in call(*common, "--threshold", 9, "--resume").out


def test_a_damaged_video_can_be_kept_up_to_the_damage(here, call):
    target = Path("data/folder/wave/half.mkv")
    write_video(target, iter(moving_square(60)), options={"g": 10})
    target.write_bytes(target.read_bytes()[:-3000])
    assert json.loads(call("prepare", "folder", "--workers", 1, "--json").out)["skipped"] == 2
    answer = call("prepare", "folder", "--workers", 1, "--keep-partial", "--retry-skipped")
    assert "13 written, 1 skipped of 14" in answer.out
    assert "damaged videos kept up to the damage: 1" in answer.out


def test_many_skipped_videos_are_counted_not_listed(here, call):
    for number in range(8):
        Path(f"data/folder/wave/b{number}.mp4").touch()
    answer = call("prepare", "folder", "--workers", 1)
    assert answer.out.count("\nskipped wave/") == 5
    assert "skipped 4 more, named in shards/folder/skipped.jsonl" in answer.out


def test_quiet_says_nothing_where_nothing_is_wrong(here, call):
    answer = call("prepare", "folder", "--workers", 1, "--quiet")
    assert (answer.code, answer.out, answer.err) == (0, "", "")


def test_warnings_of_the_listing_reach_people_and_scripts(here, call):
    Path("data/folder/empty").mkdir()
    answer = call("prepare", "folder", "--workers", 1, "--quiet")
    assert answer.err.startswith("warning: ")
    assert "empty" in answer.err
    facts = json.loads(call("prepare", "folder", "--workers", 1, "--json").out)
    assert len(facts["warnings"]) == 1
    assert "empty" in facts["warnings"][0]


def test_strict_fails_after_all_else_is_written(here, call):
    answer = call("prepare", "folder", "--workers", 1, "--strict", "--json")
    assert (answer.code, answer.out) == (1, "")
    assert "videos skipped: 1 of 13" in json.loads(answer.err)["error"]
    assert open_shards("shards/folder").index.num_written == 12


def test_a_list_names_the_videos(here, call):
    Path("list.csv").write_text("path,label,subset\nwave/v00.mp4,hello,train\njump/v01.mp4,bye,test\n")
    assert call("prepare", "folder", "--list", "list.csv", "--workers", 1, "--quiet").code == 0
    assert open_shards("shards/folder").spec.classes == ("bye", "hello")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("folder", "--part", "3"), "'3' is not K/N, such as 3/16"),
        (("folder", "--part", "3/2"), "part is 3/2: it must be from 1/N to N/N"),
        (("folder", "--part", "1/2", "--overwrite"), "--overwrite would delete what the other parts made"),
        (("folder", "--resume", "--overwrite"), "exclude each other"),
        (("folder", "--video-timeout", 0), "--video-timeout"),
        (("folder", "--split", 2), "--split is 2; folder has no splits"),
        (("ucf101", "--split", 4), "--split is 4; ucf101 has the splits 1, 2, 3"),
        (("ucf101", "--list", "x.csv"), "--list is for the data set folder; ucf101 has its own lists"),
        (("folder", "--sampling", "uniform", "--clip-step", 8), "--clip-step is for the sampling dense"),
        (("kinetics400", "--clip-step", 8), "--clip-step is for the sampling dense"),
        (("ucf101", "--clips-per-video", 2), "--clips-per-video is for the sampling uniform"),
        (("ucf101", "--eval-clips", 10), "--eval-clips is for the sampling uniform"),
    ],
)
def test_an_option_without_effect_is_refused(call, arguments, said):
    answer = call("prepare", *arguments)
    assert answer.code == 2
    assert said in answer.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_ends_with_the_same_bytes(here, number, code):
    command = [sys.executable, "-m", "respike", "prepare", "folder", "--videos-per-shard", "1", "--workers", "2"]
    # at one video a worker hangs, so that the work cannot be done before it is stopped
    environment = os.environ | {"RESPIKE_FAULTS": "decode:jump/v01=hang"}
    started = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # a test run in the background of a shell ignores Ctrl-C, and hands that on
    started["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen([*command, "--out", "a"], env=environment, **started) as run:
        deadline = time.monotonic() + 60
        while not list(Path("a/.respike/done").glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.01)
        run.send_signal(number)
        _, complaint = run.communicate(timeout=60)
    assert run.returncode == code
    assert "finished shards are kept, run the same command to go on" in complaint.splitlines()[-1]
    assert "Traceback" not in complaint
    assert not Path("a/dataset.json").exists()
    for out in ("a", "b"):
        subprocess.run([*command, "--out", out, "--quiet"], check=True)
    contents = [
        {path.name: path.read_bytes() for path in sorted(Path(out).iterdir()) if path.is_file()} for out in ("a", "b")
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]) == 12 + 4


def test_a_remote_out_is_written_and_named(call, video_folder):
    address = "memory://command/set"
    options = ["--root", video_folder, "--out", address, "--short-side", "32"]
    answer = call("prepare", "folder", *options, "--json")
    assert answer.code == 0, answer.err
    facts = json.loads(answer.out)
    assert (facts["out"], facts["written"], facts["next"]) == (address, 12, f"respike train --data {address}")
    assert call("index", address, "--quiet").code == 0


def test_an_address_that_starts_a_program_is_refused(call, video_folder):
    answer = call("prepare", "folder", "--root", video_folder, "--out", "pipe:touch x")
    assert answer.code == 1
    assert "'pipe:touch x' is no address that respike opens" in answer.err
    assert "Traceback" not in answer.err


def test_a_ray_address_goes_with_ray(call, video_folder):
    answer = call("prepare", "folder", "--root", video_folder, "--ray-address", "head:6379")
    assert answer.code == 2
    assert "--ray-address needs the executor ray" in answer.err
