"""The environment check: every requirement is looked at, and what is missing is named with a cure."""

import importlib.metadata
import re
import shutil
import tomllib
from pathlib import Path

import pytest
from respike.workflows.environment import check_disk, check_environment, check_ffmpeg, check_module, check_packages

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def test_every_requirement_of_the_project_is_imported(monkeypatch):
    groups = PROJECT["optional-dependencies"].items()
    extras = [f'{text}; extra == "{name}"' for name, texts in groups for text in texts]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: [*PROJECT["dependencies"], *extras])
    checks = check_packages()
    assert all(check.ok for check in checks), [check for check in checks if not check.ok]
    names = {re.match(r"[\w-]+", text)[0] for text in PROJECT["dependencies"]}
    versions = sorted(importlib.metadata.version(name) for name in names)
    assert sorted(check.found for check in checks) == versions


def test_an_installation_without_metadata_is_reported(monkeypatch):
    def requires(name: str) -> list[str]:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", requires)
    (check,) = check_packages()
    assert not check.ok
    assert "pip install" in check.hint


def test_a_missing_module_is_reported_with_its_package():
    check = check_module("no_such_module", "no-such-package")
    assert (check.ok, check.hint) == (False, "pip install no-such-package")
    assert "no_such_module" in check.found


def test_a_module_that_cannot_be_imported_is_reported_with_the_reason(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("raise OSError('libGL.so.1: cannot open\\nand more')")
    monkeypatch.syspath_prepend(tmp_path)
    check = check_module("broken_module", "broken")
    assert (check.ok, check.found) == (False, "cannot be imported: libGL.so.1: cannot open")
    assert check.hint == "pip install broken --force-reinstall"


@pytest.mark.parametrize("on_path", [True, False])
def test_ffmpeg_is_reported_with_version_path_and_origin(monkeypatch, on_path):
    import imageio_ffmpeg

    path = imageio_ffmpeg.get_ffmpeg_exe()
    monkeypatch.setattr(shutil, "which", lambda name: path if on_path else None)
    check = check_ffmpeg()
    assert check.ok
    version, found_path, origin = check.found.split(", ")
    assert version
    assert found_path == path
    assert origin == ("found on PATH" if on_path else "from the package imageio-ffmpeg")


def test_an_ffmpeg_that_does_not_run_is_reported(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: "/no/such/ffmpeg")
    check = check_ffmpeg()
    assert not check.ok
    assert "imageio-ffmpeg" in check.hint


def test_little_space_has_a_hint():
    assert check_disk(10**12).hint == ""
    assert check_disk(10**6).hint


def test_the_command_prints_what_the_function_returns(call):
    answer = call("doctor", "--json")
    names = [check.name for check in check_environment()]
    for name in ("respike", "python", "torch", "accelerate", "device", "ffmpeg", "cores", "disk"):
        assert name in names
        assert f'"name": "{name}"' in answer.out
