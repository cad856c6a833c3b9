import shutil
import subprocess
from pathlib import Path

import pytest
from respike.data.obtain import rar
from respike.data.obtain.archives import ArchiveError
from respike.data.obtain.rar import require_rar_program, unpack_rar
from respike.errors import RespikeError
from respike.progress import SILENCE

from tests.conftest import files_under
from tests.data.obtain.rars import write_rar, write_unrar

FILES = {"brush_hair/a (1) [x]&+;~@#!.avi": b"one" * 1000, "brush_hair/-p.avi": b"two", "ü/b.avi": b""}


def unpack(archive: Path, folder: Path) -> dict[str, bytes]:
    folder.mkdir(exist_ok=True)
    with SILENCE.task("unpack", total=None, unit="bytes") as task:
        unpack_rar(archive, folder, task)
    return files_under(folder)


@pytest.fixture(params=["unrar", "7zz", "7z", "bsdtar"])
def program(request, tmp_path, monkeypatch):
    """One program alone on the PATH: the real one where it is installed, for unrar a stand-in where it is not."""
    home = tmp_path / "bin"
    home.mkdir()
    real = shutil.which(request.param)
    is_seven_zip = real is not None and request.param.startswith("7z")
    if is_seven_zip and b"Rar5" not in subprocess.run([real, "i"], capture_output=True, check=True).stdout:
        pytest.skip(f"this {request.param} was built without RAR")
    if real is not None:
        (home / request.param).symlink_to(real)
    elif request.param == "unrar":
        write_unrar(home)
    else:
        pytest.skip(f"{request.param} is not installed")
    monkeypatch.setenv("PATH", str(home))
    return request.param


def test_a_rar_is_unpacked_with_every_name(program, tmp_path):
    assert unpack(write_rar(tmp_path / "-x.rar", FILES), tmp_path / "out") == FILES


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/tmp/out.txt"])
def test_a_name_that_leads_out_stops_it_before_a_byte_is_written(program, tmp_path, name):
    archive = write_rar(tmp_path / "x.rar", {"fine.txt": b"1", name: b"2"})
    with pytest.raises(ArchiveError, match="leads out of its folder"):
        unpack(archive, tmp_path / "out")
    assert files_under(tmp_path / "out") == {}


def test_a_rar_that_is_none_is_told_with_what_the_program_says(program, tmp_path):
    archive = tmp_path / "x.rar"
    archive.write_bytes(b"no archive at all" * 100)
    with pytest.raises(ArchiveError, match=f"{archive} cannot be unpacked: {program}: .+") as caught:
        unpack(archive, tmp_path / "out")
    assert "apt install" in caught.value.hint


def test_a_rar_that_is_cut_is_refused(program, tmp_path):
    archive = write_rar(tmp_path / "x.rar", {"a": bytes(10_000)})
    archive.write_bytes(archive.read_bytes()[:5000])
    with pytest.raises(ArchiveError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "out")


def test_without_a_program_it_is_said_which_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RespikeError, match="none of unrar, 7zz, 7z, bsdtar is on the PATH") as caught:
        require_rar_program()
    assert "apt install unrar" in caught.value.hint


def test_where_one_program_fails_the_next_is_asked(tmp_path, monkeypatch):
    home = tmp_path / "bin"
    write_unrar(home, extra="open(path, 'wb').write(b'half'); sys.exit('Unsupported method')")
    stand_in = write_unrar(tmp_path / "other")
    # 7zz takes other arguments: a stand-in that hands them on as unrar's
    (home / "7zz").write_text(
        f'#!/bin/sh\nif [ "$1" = l ]; then "{stand_in}" lb "$6" | /bin/sed "s/^/Path = /"; '
        f'else folder="${{5#-o}}"; "{stand_in}" x "$7" "$folder/"; fi\n'
    )
    (home / "7zz").chmod(0o755)
    monkeypatch.setenv("PATH", str(home))
    assert unpack(write_rar(tmp_path / "x.rar", FILES), tmp_path / "out") == FILES


def test_a_link_that_a_program_made_is_refused(tmp_path, monkeypatch):
    write_unrar(tmp_path / "bin", extra="os.path.lexists(path + '.lnk') or os.symlink('/etc/hostname', path + '.lnk')")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ArchiveError, match="no plain file"):
        unpack(write_rar(tmp_path / "x.rar", FILES), tmp_path / "out")


def test_a_program_that_fills_the_disk_is_stopped(tmp_path, monkeypatch):
    grow = "f.write(bytes(1 << 20)), f.flush(), time.sleep(0.01)"
    bomb = f"f = open(path, 'wb'); import time; [({grow}) for _ in range(3000)]"
    write_unrar(tmp_path / "bin", extra=bomb)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(rar, "_SECONDS_BETWEEN_LOOKS", 0.05)
    monkeypatch.setattr(rar, "most_bytes", lambda _: 3 << 20)
    with pytest.raises(ArchiveError, match="more than a data set would"):
        unpack(write_rar(tmp_path / "x.rar", FILES), tmp_path / "out")
    assert sum(map(len, files_under(tmp_path / "out").values())) < 30 << 20


def test_a_rar_with_a_password_asks_nobody(program, tmp_path):
    # stdin is closed to the programs, so one that asks ends with an error instead of waiting
    archive = tmp_path / "x.rar"
    archive.write_bytes(b"Rar!\x1a\x07\x01\x00" + bytes(64))
    with pytest.raises(ArchiveError):
        unpack(archive, tmp_path / "out")
