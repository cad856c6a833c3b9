import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def out(small_shards, tmp_path):
    return Path(shutil.copytree(small_shards, tmp_path / "my shards"))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[3000] ^= 1
    path.write_bytes(content)


def test_a_whole_set_is_one_line_and_the_next_command(out, call):
    answer = call("verify", out, "--workers", 1)
    assert answer.code == 0
    first, last = answer.out.splitlines()
    assert first.startswith("whole: 24 clips in 3 shards, ")
    assert "hashed and decoded" in first
    assert last == f"next: respike inspect '{out}'"
    assert answer.err.startswith("verify: 0 of 24 clips\n")


def test_damage_is_a_line_a_file_and_exit_1(out, call):
    damage(out / "train-000001.tar")
    answer = call("verify", out, "--workers", 1)
    assert answer.code == 1
    assert "train-000001.tar: SHA-256 differs from the index: its bytes were changed\n" in answer.out
    assert answer.out.splitlines()[-1] == f"next: respike verify '{out}' --repair"


def test_a_repair_says_what_was_dropped_and_what_to_do(out, call):
    damage(out / "train-000001.tar")
    answer = call("verify", out, "--repair", "--workers", 1)
    assert answer.code == 1
    assert "dropped train-000001.tar\ndropped dataset.json\nnext: the same `respike prepare` as before" in answer.out
    assert not (out / "train-000001.tar").exists()


def test_quick_says_that_nothing_was_decoded(out, call):
    answer = call("verify", out, "--quick", "--workers", 1)
    assert ", hashed in " in answer.out


def test_json_gives_the_same_facts_to_scripts(out, call):
    facts = json.loads(call("verify", out, "--json", "--workers", 1).out)
    assert (facts["whole"], facts["faults"], facts["num_clips"], facts["decoded"]) == (True, [], 24, True)
    damage(out / "train-000000.tar")
    answer = call("verify", out, "--json", "--workers", 1)
    facts = json.loads(answer.out)
    assert (answer.code, answer.err, facts["whole"]) == (1, "", False)
    assert [fault["file"] for fault in facts["faults"]] == ["train-000000.tar"]


def test_quiet_says_what_is_wrong_and_nothing_else(out, call):
    assert call("verify", out, "--quiet", "--workers", 1).out == ""
    (out / "skipped.jsonl").write_text("{}\n")
    answer = call("verify", out, "--quiet", "--workers", 1)
    assert answer.out.startswith("skipped.jsonl: ")
    assert (len(answer.out.splitlines()), answer.code) == (1, 1)


def test_strangers_are_told_apart_from_damage(out, call):
    shutil.copy(out / "train-000000.tar", out / "train-000777.tar")
    (out / "notes.txt").touch()
    answer = call("verify", out, "--workers", 1)
    assert answer.code == 1
    assert "train-000777.tar: a shard that the index does not list" in answer.out
    assert "not part of the set, and harmless: notes.txt" in answer.out
    assert answer.out.splitlines()[-1] == "next: remove these files from the folder, or prepare the data again"


def test_a_folder_without_shards_is_an_error_with_a_hint(tmp_path, call):
    answer = call("verify", tmp_path)
    assert answer.code == 1
    assert "respike prepare" in answer.err


def test_inspect_and_loaders_point_to_verify(out, call):
    (out / "train-000000.tar").write_bytes((out / "train-000000.tar").read_bytes()[:-512])
    answer = call("inspect", out)
    assert answer.code == 1
    assert f"respike verify '{out}' --repair" in answer.err


def test_an_address_is_refused_as_one(call):
    answer = call("verify", "s3://bucket/k400")
    assert answer.code == 1
    assert "s3://bucket/k400 is an address" in answer.err
