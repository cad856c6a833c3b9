"""Options that several commands share: output files, and lists of values."""

import shutil

import click
import pytest
from click.testing import CliRunner
from respike.cli import options
from respike.cli.options import PICTURE, OutputFile, OutputFolder


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    return tmp_path


# output files


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("folder", "cannot write folder: it is a folder; name a file in it"),
        ("nowhere/a.png", "cannot write nowhere/a.png: nowhere: there is no such folder; make it first"),
        ("file/a.png", "cannot write file/a.png: file: it is not a folder"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_with_the_reason(place, path, reason):
    with pytest.raises(click.BadParameter, match=reason):
        OutputFile(PICTURE).convert(path, None, None)


def test_a_file_that_can_be_written_is_not_made_yet(place):
    for path in ("new.png", "folder/new.png"):
        assert str(OutputFile(PICTURE).convert(path, None, None)) == path
    assert sorted(path.name for path in place.iterdir()) == ["file", "folder"]


def test_a_folder_need_not_exist_but_cannot_be_below_a_file(place):
    assert str(OutputFolder().convert("a/b/c", None, None)) == "a/b/c"
    assert not (place / "a").exists()
    with pytest.raises(click.BadParameter, match="cannot write to file/a"):
        OutputFolder().convert("file/a", None, None)


def test_a_file_system_that_refuses_is_found_by_trying(place):
    # permissions do not tell: even root cannot make a file under /proc
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
def test_every_command_checks_its_output_first(place, call, line):
    answer = call(*line.split())
    # nothing else in the line exists, so that any other check would have failed first
    assert answer.code == 2
    assert "cannot write" in answer.err


@pytest.mark.parametrize(
    "line",
    [
        "check folder --root no-videos --report file",
        "inspect no-shards --png file",
        "inspect no-shards --html file",
        "energy no-network --png file",
        "score no-run --confusion file",
        "score no-run --predictions file",
        "export no-run --format onnx --out file",
    ],
)
def test_a_file_that_exists_is_only_replaced_with_overwrite(place, call, line):
    refused = call(*line.split())
    assert refused.code == 2
    assert "cannot write file: the file exists; choose another name, or add --overwrite" in refused.err
    # the next thing that is wrong
    assert "the file exists" not in call(*line.split(), "--overwrite").err
    assert (place / "file").read_text() == "mine"


def test_pictures_and_pages_are_made_again_without_overwrite(place, call, small_shards):
    for _ in range(2):
        assert call("inspect", small_shards, "--png", "sheet.png", "--html", "page.html").code == 0
    assert (place / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert (place / "page.html").read_text().startswith("<!doctype html>")


def test_predictions_are_only_written_again_with_overwrite(place, call, small_run, small_shards):
    arguments = ["score", small_run, "--data", small_shards, "--predictions", "kept", "--quiet"]
    assert call(*arguments).code == 0
    assert call(*arguments).code == 2
    assert call(*arguments, "--overwrite").code == 0


@pytest.mark.parametrize(
    "line",
    [
        "score {run} --data {shards} --predictions {run}/best.safetensors",
        "score {run} --data {shards} --confusion {run}/best.safetensors",
        "export {run} --format onnx --out {run}/best.safetensors",
        "energy {run} --png {run}/best.safetensors",
        "inspect {shards} --png {shards}/dataset.json",
        "inspect {shards} --html {shards}/videos.jsonl",
        "export {run}/best.safetensors --format onnx --out {run}/best.safetensors --overwrite",
        "check folder --root . --list list.jsonl --report list.jsonl --overwrite",
        "inspect {shards} --png twice --html ./twice --overwrite",
        "score {run} {run} --data {shards} --predictions twice --predictions folder/../twice --overwrite",
        "score --from copy.safetensors --confusion copy.safetensors --overwrite",
    ],
)
def test_no_command_writes_over_weights_shards_or_its_inputs(place, call, small_run, small_shards, line):
    run = shutil.copytree(small_run, place / "run")
    shards = shutil.copytree(small_shards, place / "shards")
    shutil.copy(run / "best.safetensors", place / "copy.safetensors")
    (place / "list.jsonl").write_text('{"path":"a.mp4","label":"x"}\n')
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    answer = call(*line.format(run=run, shards=shards).split())
    assert answer.code == 2
    assert "cannot write" in answer.err
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_an_export_beside_the_weights_replaces_nothing(place, call, small_run):
    run = shutil.copytree(small_run, place / "run")
    (run / "best.onnx").write_bytes(b"mine")
    answer = call("export", run, "--format", "onnx")
    assert answer.code == 2
    assert "best.onnx: the file exists" in answer.err
    assert (run / "best.onnx").read_bytes() == b"mine"


# lists of values


@click.command(cls=options.ListCommand)
@click.argument("source")
@options.several("--stride", "strides", type=click.INT, default=(4,), pattern="[0-9]+")
@options.several("--fusion", "fusions", pattern=r"[a-z]+|\d(,\d)+", separator=options.WORD_COMMA)
def listing(source: str, strides: tuple[int, ...], fusions: tuple[str, ...]) -> None:
    click.echo(f"{source} {strides} {fusions}")


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["x"], "x (4,) ()"),
        (["x", "--stride", "2,4, 8"], "x (2, 4, 8) ()"),
        (["--stride=2", "x", "--stride", "4,8"], "x (2, 4, 8) ()"),
        (["x", "--fusion", "none,0,0,1,1,add"], "x (4,) ('none', '0,0,1,1', 'add')"),
        (["x", "--fusion", "0,0,1,1", "--fusion", "4,2,1,1"], "x (4,) ('0,0,1,1', '4,2,1,1')"),
    ],
)
def test_several_values_are_separated_by_commas_or_options(arguments, printed):
    answer = CliRunner().invoke(listing, arguments)
    assert answer.output == f"{printed}\n"


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (["x", "--stride", "2", "4", "8"], "--stride 2,4,8"),
        (["x", "--stride=2", "4"], "--stride 2,4"),
        (["--stride", "2", "4", "x"], "--stride 2,4"),
        (["x", "--fusion", "none", "0,1"], "--fusion none --fusion 0,1"),
    ],
)
def test_values_separated_by_spaces_are_refused_with_the_right_form(arguments, advice):
    answer = CliRunner().invoke(listing, arguments)
    assert answer.exit_code == 2
    assert answer.output.endswith(f"takes several values without spaces between them: {advice}\n")


def test_other_wrong_usage_keeps_its_own_message():
    for arguments, message in (
        (["x", "y"], "unexpected extra argument (y)"),
        (["x", "--stride", "2,x"], "'x' is not a valid integer"),
        ([], "Missing argument"),
    ):
        assert message in CliRunner().invoke(listing, arguments).output
