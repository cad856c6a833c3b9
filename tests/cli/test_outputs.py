"""Output promises: a path that cannot be written is told before the work, whatever the command."""

import click
import pytest
from respike.cli.outputs import OutputFile, OutputFolder


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("folder", "cannot write folder: it is a folder; name a file in it"),
        ("nowhere/a.png", "cannot write nowhere/a.png: nowhere: there is no such folder; make it first"),
        ("file/a.png", "cannot write file/a.png: file: it is no folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_with_the_reason(place, path, reason):
    with pytest.raises(click.BadParameter, match=reason):
        OutputFile().convert(path, None, None)


def test_a_file_that_can_be_written_is_not_made_yet(place):
    for path in ("new.png", "folder/new.png", "file"):
        assert str(OutputFile().convert(path, None, None)) == path
    assert sorted(path.name for path in place.iterdir()) == ["file", "folder"]
    assert (place / "file").read_text() == "mine"


def test_a_folder_may_be_to_make_but_not_below_a_file(place):
    assert str(OutputFolder().convert("a/b/c", None, None)) == "a/b/c"
    assert not (place / "a").exists()
    with pytest.raises(click.BadParameter, match="cannot write to file/a"):
        OutputFolder().convert("file/a", None, None)


def test_a_file_system_that_takes_nothing_is_found_by_trying(place):
    # permissions say nothing here: even root cannot make a file under /proc
    with pytest.raises(click.BadParameter, match="cannot write to /proc/respike"):
        OutputFolder().convert("/proc/respike", None, None)


@pytest.mark.parametrize(
    "line",
    [
        "check folder --root no-videos --report nowhere/faults.jsonl",
        "inspect no-shards --png nowhere/sheet.png",
        "inspect no-shards --html nowhere/page.html",
        "energy no-network --png nowhere/energy.png",
        "explain no-run no-clip --out file/why",
        "score no-run --confusion nowhere/confusion.png",
        "score no-run --predictions nowhere/kept",
        "train --data no-shards --out file/run",
        "demo --out file/demo",
        "ablate demo --out file/ablation",
        "zoo publish no-run --name a.b --licence MIT --out file/published",
    ],
)
def test_every_command_looks_at_its_output_before_anything_else(place, call, line):
    answer = call(*line.split())
    # nothing else of the line exists, so that whatever else was looked at first would have been told
    assert answer.code == 2
    assert "cannot write" in answer.err
