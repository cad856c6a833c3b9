"""Output promises: a path that cannot be written is told before the work, whatever the command."""

import shutil

import click
import pytest
import torch
from respike.cli.options import (
    _PUBLISHED_NAMES,
    _RUN_NAMES,
    _SHARDS_NAMES,
    FAULTS,
    HTML,
    NIR,
    ONNX,
    PNG,
    PREDICTIONS,
    Kind,
    OutputFile,
    OutputFolder,
)
from respike.data.index import INDEX_NAME, SET_FILE_NAME, SKIPPED_NAME, VIDEOS_NAME
from respike.zoo.history import HISTORY_NAME
from respike.zoo.predictions import Row, collect, save_predictions
from respike.zoo.publishing import PUBLISHED_NAMES, README_NAME
from respike.zoo.run_folder import BEST_NAME, CONFIG_NAME, LAST_NAME, RECIPE_NAME, REQUEST_NAME
from safetensors.torch import save


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
        OutputFile(PNG).convert(path, None, None)


def test_a_file_that_can_be_written_is_not_made_yet(place):
    (place / "empty").touch()
    for path in ("new.png", "folder/new.png", "empty"):
        assert str(OutputFile(PNG).convert(path, None, None)) == path
    assert sorted(path.name for path in place.iterdir()) == ["empty", "file", "folder"]
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
        "export no-run --format onnx --out nowhere/a.onnx",
        "zoo publish no-run --name a.b --licence MIT --out file/published",
    ],
)
def test_every_command_looks_at_its_output_before_anything_else(place, call, line):
    answer = call(*line.split())
    # nothing else of the line exists, so that whatever else was looked at first would have been told
    assert answer.code == 2
    assert "cannot write" in answer.err


PICTURE = b"\x89PNG\r\n\x1a\n and so on"


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (PNG, PICTURE),
        (HTML, b"<!DOCTYPE html>\n<html>"),
        (ONNX, b"\x08\x0a\x12"),
        (NIR, b"\x89HDF\r\n\x1a\n\x00"),
        (FAULTS, b'{"reason":"cut","stage":"decode","subset":"test","video":"a.mp4"}\n'),
    ],
    ids=lambda value: value.name if isinstance(value, Kind) else "",
)
def test_an_earlier_output_is_written_over_and_a_file_of_another_kind_is_not(place, kind, content):
    path = place / "out.onnx"
    path.write_bytes(content)
    OutputFile(kind).convert(path, None, None)
    # a list of videos, weights, a picture of another format
    for foreign in (
        b'{"path":"a.mp4","label":"x"}\n',
        save({"head": torch.zeros(8)}),
        b"\xff\xd8\xff\xe0JFIF",
        b"\x08",
    ):
        path.write_bytes(foreign)
        if foreign == b"\x08" and kind is ONNX:
            continue
        with pytest.raises(click.BadParameter, match=f"there is a file that is not {kind.name}"):
            OutputFile(kind).convert(path, None, None)


def test_predictions_are_written_over_and_weights_are_not(place):
    rows = [Row(video=name, clip=0, crop=0, label=0) for name in "ab"]
    save_predictions(place / "kept", collect([torch.full((2, 2), 0.5)], rows), ["x", "y"])
    OutputFile(PREDICTIONS).convert("kept", None, None)
    # weights of the demo, whose header is long, and of a network that has a layer of that name
    for weights in ({f"layer{number}": torch.zeros(1) for number in range(999)}, {"probabilities": torch.zeros(1)}):
        (place / "kept").write_bytes(save(weights))
        with pytest.raises(click.BadParameter, match="not predictions"):
            OutputFile(PREDICTIONS).convert("kept", None, None)


@pytest.mark.parametrize(
    ("mark", "name", "owner"),
    [
        ("last.safetensors", "curves.png", "the run"),
        ("history.jsonl", "best.safetensors", "the run"),
        ("dataset.json", "test-000003.tar", "the shards"),
        (".respike", "skipped.jsonl", "the shards"),
        ("card.json", "model.safetensors", "the published weights"),
    ],
)
def test_a_name_that_belongs_to_a_folder_of_respike_s_is_refused_whatever_is_there(place, mark, name, owner):
    (place / mark).touch()
    with pytest.raises(click.BadParameter, match=f"it belongs to {owner}"):
        OutputFile(PNG).convert(name, None, None)
    assert str(OutputFile(PNG).convert("mine.png", None, None)) == "mine.png"
    # elsewhere such a name is anybody's
    assert OutputFile(PNG).convert(f"folder/{name}", None, None)


def test_the_names_are_those_that_are_written():
    for name in (BEST_NAME, LAST_NAME, CONFIG_NAME, HISTORY_NAME, RECIPE_NAME, REQUEST_NAME, "best.json"):
        assert _RUN_NAMES.fullmatch(name)
    for name in (INDEX_NAME, VIDEOS_NAME, SKIPPED_NAME, README_NAME, "train-000000.tar"):
        assert SET_FILE_NAME.fullmatch(name)
        assert _SHARDS_NAMES.fullmatch(name)
    assert all(map(_PUBLISHED_NAMES.fullmatch, PUBLISHED_NAMES))


@pytest.mark.parametrize(
    "line",
    [
        "score {run} --data {shards} --predictions {run}/best.safetensors",
        "score {run} --data {shards} --confusion {run}/best.safetensors",
        "export {run} --format onnx --out {run}/best.safetensors",
        "export {run} --format nir --out {run}/best.json",
        "energy {run} --png {run}/best.json",
        "inspect {shards} --png {shards}/dataset.json",
        "inspect {shards} --html {shards}/videos.jsonl",
        "export {run}/best --format onnx --out ./copy.safetensors",
        "check folder --root . --list list.jsonl --report list.jsonl",
        "inspect {shards} --png twice --html ./twice",
        "score {run} {run} --data {shards} --predictions twice --predictions folder/../twice",
        "score --from copy.safetensors --confusion copy.safetensors",
    ],
)
def test_no_command_writes_over_weights_shards_or_what_it_reads(place, call, small_run, small_shards, line):
    run = shutil.copytree(small_run, place / "run")
    shards = shutil.copytree(small_shards, place / "shards")
    shutil.copy(run / "best.safetensors", place / "copy.safetensors")
    (place / "list.jsonl").write_text('{"path":"a.mp4","label":"x","video":"","stage":"","reason":""}\n')
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    answer = call(*line.format(run=run, shards=shards).split())
    assert answer.code == 2
    assert "cannot write" in answer.err
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_an_export_goes_over_no_file_of_the_other_format(place, call, small_run):
    run = shutil.copytree(small_run, place / "run")
    (run / "best.onnx").write_bytes(PICTURE)
    (place / "spikes.nir").write_bytes(b"\x89HDF\r\n\x1a\n\x00")
    for more in ([], ["--out", place / "spikes.nir"]):
        answer = call("export", run, "--format", "onnx", *more)
        assert answer.code == 1
        assert "there is a file that is not an ONNX file" in answer.err
    assert (run / "best.onnx").read_bytes() == PICTURE


def test_predictions_and_pictures_are_kept_twice_under_one_name(place, call, small_run, small_shards):
    line = f"score {small_run} --data {small_shards} --predictions kept --confusion confusion.png --quiet"
    for _ in range(2):
        assert call(*line.split()).code == 0
