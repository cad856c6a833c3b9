"""`respike export`: files for other programs, and what is said of them."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import write_run

pytest.importorskip("onnxruntime")
nir = pytest.importorskip("nir")


@pytest.mark.slow
def test_onnx_is_written_beside_the_weights_and_compared(call, small_run: Path, tmp_path: Path):
    run = shutil.copytree(small_run, tmp_path / "run")
    answer = call("export", run, "--format", "onnx", "--json")
    told = json.loads(answer.out)
    assert told["out"] == str(run / "best.onnx")
    assert (told["num_clips"], told["num_bytes"]) == (4, (run / "best.onnx").stat().st_size)
    assert told["max_difference"] <= 0.02 * told["max_logit"]


def test_nir_of_spikes_alone_is_written(call, small_shards: Path, tmp_path: Path):
    run = write_run(tmp_path / "snn", small_shards, "snn")
    answer = call("export", run, "--format", "nir", "--out", tmp_path / "spikes.nir", "--float64")
    assert (answer.code, answer.err) == (0, "")
    graph = nir.read(tmp_path / "spikes.nir")
    assert json.loads(graph.metadata["classes"]) == ["jump", "wave"]
    assert graph.nodes["head"].weight.dtype == "float64"
    assert f"{len(graph.nodes)} nodes" in answer.out


def test_double_precision_is_for_nir_alone(call, small_run: Path):
    assert call("export", small_run, "--format", "onnx", "--float64").code == 2


def test_an_unknown_format_lists_the_formats(call, small_run: Path):
    answer = call("export", small_run, "--format", "tflite")
    assert answer.code == 2
    assert "onnx" in answer.err
