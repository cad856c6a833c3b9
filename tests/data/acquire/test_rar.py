"""RAR archives: every known program unpacks them, and links and names that lead out are refused."""

import shutil
import subprocess
from pathlib import Path

import pytest
from respike.common.errors import RespikeError
from respike.common.progress import SILENCE
from respike.data import archives
from respike.data.archives import ArchiveError, require_rar_program, unpack_rar

from tests.conftest import files_under
from tests.data.acquire.rars import write_rar, write_unrar

FILES = {"brush_hair/a (1) [x]&+;~@#!.avi": b"one" * 1000, "brush_hair/-p.avi": b"two", "ü/b.avi": b""}


def unpack(archive: Path, folder: Path) -> dict[str, bytes]:
    folder.mkdir(exist_ok=True)
    with SILENCE.task("unpack", total=None, unit="bytes") as task:
        unpack_rar(archive, folder, task)
    return files_under(folder)


@pytest.fixture(params=["unrar", "7zz", "7z", "bsdtar"])
def program(request, tmp_path, monkeypatch):
    """One program alone on the PATH: the real one where it is installed and knows RAR, else a stand-in."""
    home = tmp_path / "bin"
    home.mkdir()
    real = shutil.which(request.param)
    if real is not None and request.param.startswith("7z"):
        # some are built without
        real = real if b"Rar5" in subprocess.run([real, "i"], capture_output=True, check=True).stdout else None
    if real is not None:
        (home / request.param).symlink_to(real)
    else:
        write_unrar(home, name=request.param)
    monkeypatch.setenv("PATH", str(home))
    return request.param


def test_a_rar_is_unpacked_with_every_name(program, tmp_path):
    assert unpack(write_rar(tmp_path / "-x.rar", FILES), tmp_path / "out") == FILES


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt", "/tmp/out.txt"])
def test_a_name_that_leads_out_is_refused_before_writing(program, tmp_path, name):
    archive = write_rar(tmp_path / "x.rar", {"fine.txt": b"1", name: b"2"})
    with pytest.raises(ArchiveError, match="leads out of its folder"):
        unpack(archive, tmp_path / "out")
    assert files_under(tmp_path / "out") == {}


@pytest.mark.parametrize("target", ["../outside", "/tmp", "fine"])
def test_a_link_is_refused_before_writing(program, tmp_path, target):
    outside = tmp_path / "outside"
    outside.mkdir()
    target = str(outside) if target.startswith("/") else target
    archive = write_rar(tmp_path / "x.rar", {"fine/a": b"1", "sub/written.txt": b"2"}, links={"sub": target})
    with pytest.raises(ArchiveError, match="holds a link or the like, which is no plain file"):
        unpack(archive, tmp_path / "out")
    assert list(outside.iterdir()) == []
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "line", "is_plain"),
    [
        ("unrar", "        Type: File", True),
        ("unrar", "        Type: Directory", True),
        ("unrar", "        Type: Hard link", False),
        ("unrar", "        Type: NTFS junction point", False),
        ("7zz", "Attributes = A -rw-r--r--", True),
        ("7zz", "Attributes = D_ drwxr-xr-x", True),
        ("7zz", "Attributes = A", True),
        ("7zz", "Attributes =", True),
        ("7zz", "Attributes =  drwxr-xr-x", True),
        # in an older RAR, where a link has no line of its own
        ("7z", "Attributes = A lrwxrwxrwx", False),
        ("7z", "Attributes =  lrwxrwxrwx", False),
        ("7z", "Attributes = lrwxrwxrwx", False),
        ("7z", "Attributes = _ prw-r--r--", False),
        # a reparse point
        ("7z", "Attributes = DL", False),
        ("7z", "Hard Link = a/b.avi", False),
        ("7z", "Copy Link = a/b.avi", False),
        ("bsdtar", "drwxr-xr-x  0 0      0           0 Jan  1  2024 a/", True),
        ("bsdtar", "hrw-r--r--  0 0      0           0 Jan  1  2024 a link to b", False),
    ],
)
def test_the_kind_of_a_member_is_read_from_each_listing(name, line, is_plain):
    program = next(each for each in archives.RAR_PROGRAMS if each.name == name)
    assert program.kind.match(line.encode())
    assert (program.plain.match(line.encode()) is not None) is is_plain


def test_a_program_that_gives_no_kinds_may_not_unpack(tmp_path, monkeypatch):
    path = write_unrar(tmp_path / "bin")
    path.write_text(path.read_text().replace("        Type:", "        Typ:"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(ArchiveError, match="unrar: gives the kind of 0 of 3 members"):
        unpack(write_rar(tmp_path / "x.rar", FILES), tmp_path / "out")
    assert files_under(tmp_path / "out") == {}


def test_a_file_that_is_no_rar_shows_the_programs_error(program, tmp_path):
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


def test_a_missing_program_is_named_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RespikeError, match="none of unrar, 7zz, 7z, bsdtar is on the PATH") as caught:
        require_rar_program()
    assert "apt install unrar" in caught.value.hint


def test_after_a_failed_program_the_next_one_is_tried(tmp_path, monkeypatch):
    home = tmp_path / "bin"
    write_unrar(home, extra="open(path, 'wb').write(b'half'); sys.exit('Unsupported method')")
    write_unrar(home, name="7zz")
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
    monkeypatch.setattr(archives, "SECONDS_BETWEEN_CHECKS", 0.05)
    monkeypatch.setattr(archives, "max_bytes", lambda _: 3 << 20)
    with pytest.raises(ArchiveError, match="more than a data set would"):
        unpack(write_rar(tmp_path / "x.rar", FILES), tmp_path / "out")
    assert sum(map(len, files_under(tmp_path / "out").values())) < 30 << 20


def test_a_rar_with_a_password_does_not_wait_for_input(program, tmp_path):
    # stdin of the programs is closed, so that one that asks for a password ends with an error
    archive = tmp_path / "x.rar"
    archive.write_bytes(b"Rar!\x1a\x07\x01\x00" + bytes(64))
    with pytest.raises(ArchiveError):
        unpack(archive, tmp_path / "out")
