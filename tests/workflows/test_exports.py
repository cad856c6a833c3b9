"""Exports from Python: default paths, formats, and refusals."""

from pathlib import Path

import pytest
from respike import export
from respike.common.errors import RespikeError, SettingError
from respike.workflows.exports import default_path

from tests.cli.conftest import write_run


def test_an_export_is_beside_the_weights_of_a_run(small_run: Path) -> None:
    assert default_path(small_run, "nir") == small_run / "best.nir"
    # weights in the package or in a cache are no place to write to
    assert default_path("respike_tiny.demo16", "onnx") == Path("respike_tiny.demo16.onnx")
    assert default_path("hf://owner/repo/", "nir") == Path("repo.nir")


def test_a_spiking_network_is_written_as_nir(small_shards: Path, tmp_path: Path) -> None:
    nir = pytest.importorskip("nir")
    exported = export(write_run(tmp_path / "snn", small_shards, "snn"), format="nir", float64=True)
    assert exported.out == tmp_path / "snn" / "best.nir"
    assert exported.num_bytes == exported.out.stat().st_size
    assert len(nir.read(exported.out).nodes) == exported.num_nodes == exported.to_json()["num_nodes"]


@pytest.mark.parametrize(
    ("arguments", "setting"), [({"format": "tflite"}, "format"), ({"format": "onnx", "float64": True}, "float64")]
)
def test_what_no_format_has_is_refused(arguments: dict[str, object], setting: str, small_run: Path) -> None:
    with pytest.raises(SettingError) as caught:
        export(small_run, **arguments)
    assert caught.value.setting == setting


def test_a_hybrid_cannot_be_nir(small_run: Path, tmp_path: Path) -> None:
    pytest.importorskip("nir")
    with pytest.raises(RespikeError, match="attention"):
        export(small_run, tmp_path / "hybrid.nir", format="nir")
    assert not (tmp_path / "hybrid.nir").exists()
