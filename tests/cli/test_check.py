import json
import os
from pathlib import Path

import pytest


@pytest.fixture
def here(tmp_path, video_folder, monkeypatch):
    """A working folder with six small videos, a broken one and a list that names seven more."""
    rows = []
    for path in sorted(video_folder.rglob("*.mp4"))[:6]:
        target = tmp_path / "data" / "folder" / path.relative_to(video_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
        rows.append(f"{target.parent.name}/{target.name},{target.parent.name}")
    (tmp_path / "data" / "folder" / "jump" / "broken.mp4").write_bytes(b"no video")
    rows += ["jump/broken.mp4,jump", *(f"gone/{number}.mp4,class {number:02d}" for number in range(7))]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_counts_names_some_and_ends_with_the_next_command(here, call):
    answer = call("check", "folder", "--list", "list.csv", "--workers", 1)
    assert answer.code == 0, answer.err
    assert "14 videos in " in answer.out
    assert "missing     7\n" in answer.out
    assert "unreadable  1\n" in answer.out
    assert "jump/broken.mp4: open: " in answer.out
    assert "and 3 more; --report FILE names them" in answer.out
    assert answer.out.splitlines()[-1] == "next: respike prepare folder --list list.csv"
    assert not Path("shards").exists()


def test_many_are_named_in_the_report_and_not_on_the_screen(here, call):
    answer = call("check", "folder", "--list", "list.csv", "--workers", 1, "--report", "faults.jsonl")
    assert "and 3 more; named in faults.jsonl" in answer.out
    assert answer.out.count("gone/") == 4
    rows = [json.loads(line) for line in Path("faults.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in rows] == ["open"] + ["missing"] * 7


def test_json_gives_the_same_facts_to_scripts(here, call):
    answer = call("check", "folder", "--list", "list.csv", "--workers", 1, "--json", "--full")
    facts = json.loads(answer.out)
    assert (answer.code, answer.err) == (0, "")
    assert (facts["listed"], facts["present"], facts["missing"], facts["unreadable"]) == (14, 7, 7, 1)
    assert facts["decoded"] is True
    assert sum(count["missing"] for count in facts["classes"]) == 7
    assert "without a video on disk" in facts["warnings"][0]


def test_strict_fails_only_if_a_video_is_missing_or_broken(here, call):
    answer = call("check", "folder", "--list", "list.csv", "--workers", 1, "--strict", "--report", "faults.jsonl")
    assert answer.code == 1
    assert "videos listed: 14, missing: 7, unreadable: 1" in answer.err
    assert "faults.jsonl" in answer.err
    Path("data/folder/jump/broken.mp4").unlink()
    well = call("check", "folder", "--workers", 1, "--strict")
    assert well.code == 0
    assert well.out.splitlines()[-1] == "next: respike prepare folder"


def test_quiet_says_nothing_where_nothing_is_wrong(here, call):
    Path("data/folder/jump/broken.mp4").unlink()
    answer = call("check", "folder", "--workers", 1, "--quiet")
    assert (answer.code, answer.out, answer.err) == (0, "", "")


def test_links_out_of_the_root_are_followed_unless_asked_not_to(here, call):
    Path("elsewhere.mp4").write_bytes(Path("data/folder/jump/v01.mp4").read_bytes())
    Path("data/folder/jump/link.mp4").symlink_to(Path("elsewhere.mp4").resolve())
    Path("data/folder/jump/broken.mp4").unlink()
    assert json.loads(call("check", "folder", "--workers", 1, "--json").out)["missing"] == 0
    answer = call("check", "folder", "--workers", 1, "--no-follow-symlinks")
    assert "warning: videos that are links out of data/folder and count as missing: 1 (jump/link.mp4)" in answer.err
    assert "missing     1\n" in answer.out
    assert answer.out.splitlines()[-1] == "next: respike prepare folder --no-follow-symlinks"
    assert json.loads(call("prepare", "folder", "--workers", 1, "--json", "--out", "a").out)["skipped"] == 0
    facts = json.loads(call("prepare", "folder", "--workers", 1, "--json", "--out", "b", "--no-follow-symlinks").out)
    assert facts["skipped_by_stage"] == {"missing": 1}


def test_an_absent_root_says_how_to_get_the_videos(here, call):
    answer = call("check", "ucf101")
    assert answer.code == 1
    assert "data/ucf101" in answer.err
    assert "crcv.ucf.edu" in answer.err


def test_a_list_for_a_data_set_with_lists_of_its_own_is_refused(here, call):
    assert call("check", "ucf101", "--list", "list.csv").code == 2
