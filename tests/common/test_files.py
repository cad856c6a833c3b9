"""Files: the user cache is one folder, private to its user."""

import stat

import pytest
from respike.common.errors import RespikeError
from respike.common.files import cache_folder


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("RESPIKE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


def test_the_cache_is_in_the_home_folder_unless_set(monkeypatch, tmp_path):
    assert cache_folder("zoo") == tmp_path / "home" / ".cache" / "respike" / "zoo"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("zoo") == tmp_path / "xdg" / "respike" / "zoo"
    monkeypatch.setenv("RESPIKE_CACHE", str(tmp_path / "mine"))
    assert cache_folder("shards") == tmp_path / "mine" / "shards"


def test_a_new_cache_is_private_and_is_used_again():
    folder = cache_folder("zoo")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "file").write_text("x")
    assert (cache_folder("zoo") / "file").read_text() == "x"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720])
def test_a_cache_that_others_can_write_to_is_refused(mode):
    cache_folder("zoo").chmod(mode)
    with pytest.raises(RespikeError, match="open to other users") as refused:
        cache_folder("zoo")
    assert "chmod 700" in refused.value.hint


def test_a_cache_that_cannot_be_created_is_one_error(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("RESPIKE_CACHE", str(tmp_path / "file"))
    with pytest.raises(RespikeError, match="cannot create the cache") as refused:
        cache_folder("zoo")
    assert "RESPIKE_CACHE" in refused.value.hint
