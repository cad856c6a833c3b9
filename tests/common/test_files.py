"""Files: a private user cache; writes and locks on file systems that lack links, locks or the flush of folders."""

import errno
import fcntl
import os
import stat
import threading

import pytest
from respike.common import files
from respike.common.errors import RespikeError
from respike.common.files import cache_folder, file_lock, folder_lock, lock_owner, write_atomically, write_new


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


NO_LOCKS = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]


def fail(monkeypatch, module, name, code, condition=lambda *arguments: True):
    """Let a function of the system fail with an error number where `condition` is true."""
    original = getattr(module, name)

    def failing(*arguments, **options):
        if condition(*arguments):
            raise OSError(code, os.strerror(code))
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, failing)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_a_new_file_needs_no_hard_links(monkeypatch, tmp_path, code):
    fail(monkeypatch, os, "link", code)
    assert write_new(tmp_path / "new", "first")
    assert not write_new(tmp_path / "new", "second")
    assert (tmp_path / "new").read_text() == "first"
    assert not list(tmp_path.glob("*.tmp"))


def test_of_many_writers_without_hard_links_one_succeeds(monkeypatch, tmp_path):
    fail(monkeypatch, os, "link", errno.EPERM)
    answers = []
    writers = [
        threading.Thread(target=lambda text=str(n): answers.append((write_new(tmp_path / "new", text), text)))
        for n in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    [winner] = [text for written, text in answers if written]
    assert (tmp_path / "new").read_text() == winner


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_folder_that_cannot_be_flushed_is_no_error(monkeypatch, tmp_path, code):
    fail(monkeypatch, os, "fsync", code, lambda file: stat.S_ISDIR(os.fstat(file).st_mode))
    write_atomically(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"


def test_a_flush_that_loses_data_is_an_error(monkeypatch, tmp_path):
    fail(monkeypatch, os, "fsync", errno.EIO, lambda file: stat.S_ISDIR(os.fstat(file).st_mode))
    with pytest.raises(RespikeError, match="cannot write"):
        write_atomically(tmp_path / "file", "text")


@pytest.mark.parametrize("code", NO_LOCKS)
def test_a_folder_is_locked_on_a_file_system_without_locks(monkeypatch, tmp_path, code):
    fail(monkeypatch, fcntl, "flock", code)
    lock = tmp_path / "state" / "lock"
    owner = r"in use: process \d+ on .* \(a test\)"
    for _ in range(2):
        with folder_lock(lock, "a test"):
            assert lock_owner(lock) == os.uname().nodename
            with (
                pytest.raises(RespikeError, match=owner) as refused,
                folder_lock(lock, ""),
            ):
                pass
            assert f"delete {lock}.held" in refused.value.hint
        assert lock_owner(lock) is None


def test_a_lock_file_of_another_file_system_holds_nothing(monkeypatch, tmp_path):
    with file_lock(tmp_path / "lock"):
        pass
    fail(monkeypatch, fcntl, "flock", errno.ENOLCK)
    with file_lock(tmp_path / "lock"):
        pass


def test_a_wait_without_locks_ends_with_what_to_delete(monkeypatch, tmp_path):
    fail(monkeypatch, fcntl, "flock", errno.ENOLCK)
    monkeypatch.setattr(files, "MAX_WAIT_WITHOUT_LOCKS_SECONDS", 0)
    # as a process of another machine leaves it when it is killed
    (tmp_path / "lock.held").write_text("1\nanother-machine\n")
    waits = []
    with (
        pytest.raises(RespikeError, match="another process has held") as refused,
        file_lock(tmp_path / "lock", lambda: waits.append(1)),
    ):
        pass
    assert (waits, "delete this file" in refused.value.hint) == ([1], True)


def test_a_lock_that_cannot_be_written_is_one_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RespikeError, match="cannot write"), folder_lock(tmp_path / "file" / "lock", "a test"):
        pass
