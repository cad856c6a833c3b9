"""Archives: zip, tar and RAR, unpacked into one folder and nowhere else."""

import os
import re
import shutil
import stat
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from respike.common.errors import RespikeError
from respike.common.files import write_error
from respike.common.progress import Progress, Task

# a bomb unpacks to thousands of times its size; videos hardly shrink and lists do not matter
_MOST_GROWTH = 20
_FREE_GROWTH_BYTES = 64 << 20
MOST_MEMBERS = 1_000_000
_CHUNK_BYTES = 1 << 20
_REFUSED = "the archive is damaged or made to harm; remove it and fetch it again"


class ArchiveError(RespikeError):
    """An archive that is damaged, or that would write outside its folder, make links, or fill the disk."""


def most_bytes(archive: Path) -> int:
    """How much an archive may unpack to."""
    return archive.stat().st_size * _MOST_GROWTH + _FREE_GROWTH_BYTES


def checked_path(name: str, archive: Path) -> PurePosixPath:
    """The path of a member, under the folder that is unpacked to. Raises ArchiveError where it leads out of it."""
    path = PurePosixPath(name)
    # a backslash or a drive would lead out on other systems, and no data set has one
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or name[1:2] == ":":
        raise ArchiveError(f"{archive} holds {name!r}, which leads out of its folder", _REFUSED)
    return path


def unpack_zip(archive: Path, folder: Path, task: Task) -> None:
    """Unpack a zip file into `folder`. Raises ArchiveError; nothing outside `folder` is touched."""
    try:
        with zipfile.ZipFile(archive) as file:
            budget = _Budget(archive, task)
            for member in file.infolist():
                kind = stat.S_IFMT(member.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise ArchiveError(f"{archive} holds {member.filename!r}, which is no plain file", _REFUSED)
                path = folder / checked_path(member.filename, archive)
                if member.is_dir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                with file.open(member) as source:
                    budget.write(source, path)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _damaged(archive, error) from error


def unpack_tar(archive: Path, folder: Path, task: Task) -> None:
    """Unpack a tar file, compressed or not, into `folder`. Raises ArchiveError; nothing outside `folder` is touched."""
    try:
        with tarfile.open(archive, "r:*") as file:
            budget = _Budget(archive, task)
            for member in file:
                path = folder / checked_path(member.name, archive)
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                source = file.extractfile(member) if member.isreg() else None
                if source is None:
                    raise ArchiveError(f"{archive} holds {member.name!r}, which is no plain file", _REFUSED)
                with source:
                    budget.write(source, path)
                # tarfile keeps every member it has read
                file.members = []  # type: ignore[attr-defined]
    except (tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        raise _damaged(archive, error) from error


class _Budget:
    """Writes members, and stops an archive that unpacks to more than any data set would."""

    def __init__(self, archive: Path, task: Task) -> None:
        self._archive, self._task = archive, task
        self._num_bytes, self._num_members = most_bytes(archive), MOST_MEMBERS

    def write(self, source: IO[bytes], path: Path) -> None:
        """Write one member to `path`."""
        self._num_members -= 1
        self._check()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for chunk in _chunks(source):
                self._num_bytes -= len(chunk)
                self._check()
                file.write(chunk)
                self._task.advance(len(chunk))

    def _check(self) -> None:
        if self._num_bytes < 0 or self._num_members < 0:
            raise ArchiveError(f"{self._archive} unpacks to more than a data set would", _REFUSED)


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK_BYTES):
        yield chunk


def _damaged(archive: Path, error: Exception) -> ArchiveError:
    return ArchiveError(f"{archive} cannot be unpacked: {error}", _REFUSED)


_SECONDS_BETWEEN_LOOKS = 1.0
_INSTALL = (
    "install one: `apt install unrar` or `apt install libarchive-tools` (bsdtar), `brew install libarchive`, "
    "`conda install -c conda-forge libarchive`; or unpack the archive by hand"
)

_HARMFUL = "the archive is made to harm; remove it and fetch it again"


@dataclass(frozen=True, kw_only=True)
class _Program:
    """How a program lists and unpacks: argument lists, and how the lines of its listings read.

    Lines of `listing` that begin with `prefix` are names. Of `kinds`, lines that `kind` finds tell what a member is;
    where they match `plain` it is a file or a folder, else a link, a device or the like.
    """

    name: str
    listing: Callable[[str], list[str]]
    kinds: Callable[[str], list[str]]
    kind: re.Pattern[bytes]
    plain: re.Pattern[bytes]
    unpacking: Callable[[str, str], list[str]]
    prefix: str = ""


def _seven_zip(name: str) -> _Program:
    return _Program(
        name=name,
        listing=lambda archive: ["l", "-ba", "-slt", "-p", "--", archive],
        kinds=lambda archive: ["l", "-ba", "-slt", "-p", "--", archive],
        # links of RAR 5 have a line of their own, empty for other members; those of older RARs show in a Unix mode
        # alone, behind the attributes of Windows. What an older RAR has packed on another system has no mode, and such
        # archives know no links
        kind=re.compile(rb"Attributes =|(Symbolic|Hard|Copy) Link = ."),
        plain=re.compile(rb"Attributes = ?[RHSDANTsCOIE8_]* ?([-d]([r-][w-][xsStT-]){3})?$"),
        unpacking=lambda archive, folder: ["x", "-y", "-bd", "-p", f"-o{folder}", "--", archive],
        prefix="Path = ",
    )


# unrar first: it alone knows every RAR there is
_PROGRAMS = (
    _Program(
        name="unrar",
        listing=lambda archive: ["lb", "-p-", archive],
        # `Unix symbolic link`, `Windows symbolic link`, `NTFS junction point`, `Hard link`, `File reference`
        kinds=lambda archive: ["lt", "-p-", "-c-", archive],
        kind=re.compile(rb" *Type: "),
        plain=re.compile(rb" *Type: (File|Directory)$"),
        unpacking=lambda archive, folder: ["x", "-y", "-o+", "-p-", archive, f"{folder}/"],
    ),
    _seven_zip("7zz"),
    _seven_zip("7z"),
    _Program(
        name="bsdtar",
        listing=lambda archive: ["-tf", archive],
        # as `ls -l`: the first letter is l for a symbolic link, h for a hard one
        kinds=lambda archive: ["-tvf", archive],
        kind=re.compile(rb"."),
        plain=re.compile(rb"[-d]"),
        unpacking=lambda archive, folder: ["-xf", archive, "-C", folder, "--no-same-owner", "--no-same-permissions"],
    ),
)


def require_rar_program() -> None:
    """Raise RespikeError, naming what to install, where no program is there that unpacks RAR."""
    if not any(shutil.which(program.name) for program in _PROGRAMS):
        names = ", ".join(program.name for program in _PROGRAMS)
        raise RespikeError(f"RAR archives need a program to unpack them; none of {names} is on the PATH", _INSTALL)


def unpack_rar(archive: Path, folder: Path, task: Task) -> None:
    """Unpack a RAR file into `folder`, which is empty, with the first program that can.

    Raises ArchiveError where a name leads out of the folder, a member is no plain file, or more comes out than of any
    data set; RespikeError where no program is installed or none can read the archive.
    """
    require_rar_program()
    problems = []
    for program in _PROGRAMS:
        path = shutil.which(program.name)
        if path is None:
            continue
        try:
            # all names are looked at before a byte is written, and what they are: a later member may go through a link
            num_names = 0
            for name in _names(path, program, archive):
                checked_path(name, archive)
                num_names += 1
            _refuse_links(path, program, archive, num_names)
            _run_watched([path, *program.unpacking(str(archive), str(folder))], folder, most_bytes(archive), task)
        except _ProgramError as error:
            problems.append(f"{program.name}: {error}")
            _empty(folder)
            continue
        _refuse_odd(archive, folder)
        return
    raise ArchiveError(
        f"{archive} cannot be unpacked: {'; '.join(problems)}",
        "if the archive is whole, another program may read it: " + _INSTALL,
    )


class _ProgramError(Exception):
    """A program that ended with an error."""


def _names(path: str, program: _Program, archive: Path) -> Iterator[str]:
    for line in _lines([path, *program.listing(str(archive))]):
        text = os.fsdecode(line)
        if text.startswith(program.prefix) and text:
            yield text.removeprefix(program.prefix)


def _refuse_links(path: str, program: _Program, archive: Path, num_names: int) -> None:
    """Raise ArchiveError where a member is no file and no folder, _ProgramError where that is not told of each."""
    num_told = 0
    for line in _lines([path, *program.kinds(str(archive))]):
        if program.kind.match(line) is None:
            continue
        if program.plain.match(line) is None:
            told = os.fsdecode(line).strip()
            raise ArchiveError(f"{archive} holds a link or the like, which is no plain file: {told}", _HARMFUL)
        num_told += 1
    # a name of several lines counts twice, and another program may be translated: rather another program than a guess
    if num_told < num_names:
        raise _ProgramError(f"tells of {num_told} of {num_names} members what they are")


def _lines(command: list[str]) -> Iterator[bytes]:
    with tempfile.TemporaryFile() as output, _started(command, output) as running:
        running.wait()
        output.seek(0)
        for line in output:
            yield line.rstrip(b"\r\n")


def _run_watched(command: list[str], folder: Path, most: int, task: Task) -> None:
    """Run a program that fills `folder`; tell how far it is, and stop it when it has written more than `most` bytes."""
    told = 0
    with _started(command, subprocess.DEVNULL) as running:
        while True:
            with suppress(subprocess.TimeoutExpired):
                running.wait(_SECONDS_BETWEEN_LOOKS)
            written = _written(folder, most)
            task.advance(written - told)
            told = written
            if running.returncode is not None:
                return


def _written(folder: Path, most: int) -> int:
    sizes = [path.lstat().st_size for path in _walk(folder) if not path.is_dir()]
    if sum(sizes) > most or len(sizes) > MOST_MEMBERS:
        raise ArchiveError(f"the archive unpacks to more than {most:,} bytes, more than a data set would", "remove it")
    return sum(sizes)


@contextmanager
def _started(command: list[str], output: IO[bytes] | int) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that writes to `output`; ended when the block is left, and _ProgramError raised where it failed."""
    # what it complains of goes to a file, as a pipe that nobody empties would stop the process
    with tempfile.TemporaryFile() as complaints:
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=complaints, env=environment)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode:
            complaints.seek(0)
            lines = complaints.read(20_000).decode(errors="replace").strip().splitlines()
            raise _ProgramError(lines[-1] if lines else f"exit code {process.returncode}")


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(parent, name)


def _refuse_odd(archive: Path, folder: Path) -> None:
    for path in _walk(folder):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            name = path.relative_to(folder)
            raise ArchiveError(f"{archive} holds {str(name)!r}, which is no plain file", _HARMFUL)


def _empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def unpack(archive: Path, target: Path, progress: Progress, *, nested: bool = False) -> None:
    """Unpack `archive` to the folder `target`, which must not exist yet.

    Where all of it lies in one folder, that folder becomes the target, whatever its name. `nested`: each archive in it
    becomes a folder of the target. Stopped at any moment, it leaves no target, and the next call starts afresh.
    Raises ArchiveError on an archive that is damaged or made to harm, RespikeError where the disk is full.
    """
    temporary = target.with_name(f".{target.name}.unpacking")
    try:
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True)
        with progress.task(f"unpack {archive.name}", total=None, unit="bytes") as task:
            content = _unpack_into(archive, temporary / "all", task)
            if nested:
                _unpack_nested(content, temporary / "one", task)
        # the rename must not reach the disk before what it names
        os.sync()
        content.rename(target)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack_into(archive: Path, folder: Path, task: Task) -> Path:
    """Unpack one archive; the folder that holds what is in it."""
    folder.mkdir()
    name = archive.name.lower()
    if name.endswith(".rar"):
        unpack_rar(archive, folder, task)
    elif name.endswith(".zip"):
        unpack_zip(archive, folder, task)
    else:
        unpack_tar(archive, folder, task)
    entries = list(folder.iterdir())
    if not entries:
        raise ArchiveError(f"{archive} is empty", "remove it and fetch it again")
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def _unpack_nested(folder: Path, temporary: Path, task: Task) -> None:
    """Put a folder in the place of each archive in `folder`, by the name of the one folder in it or its own."""
    for archive in sorted(path for path in folder.iterdir() if is_archive(path.name)):
        content = _unpack_into(archive, temporary, task)
        target = folder / (content.name if content != temporary else stem(archive.name))
        if target.exists():
            raise RespikeError(f"{archive.name} and another archive both hold {target.name}", "look at the archives")
        content.rename(target)
        shutil.rmtree(temporary, ignore_errors=True)
        archive.unlink()


ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar")


def is_archive(name: str) -> bool:
    """Whether a file of this name can be unpacked."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def stem(name: str) -> str:
    """An archive's name without its suffix."""
    suffix = max((suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)), key=len, default="")
    return name[: len(name) - len(suffix)]
