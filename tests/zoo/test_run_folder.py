"""Run folder: made whole or refused in one line."""

from pathlib import Path

import pytest
from respike.common.errors import RespikeError
from respike.zoo.run_folder import RunFolder


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RespikeError, match=r"cannot make .*file/run: Not a directory"):
        RunFolder(tmp_path / "file/run", resume=False)


def test_a_run_that_fails_lets_go_of_its_folder(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RunFolder(tmp_path / "run", resume=False):
        raise KeyError
    with RunFolder(tmp_path / "run", resume=False), pytest.raises(RespikeError, match="is in use"):
        RunFolder(tmp_path / "run", resume=True)
