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
from respike.data.datasets.common import to_disk

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".rar")
# a decompression bomb grows a thousandfold; videos hardly shrink in an archive, and lists of names are small
MAX_GROWTH = 20
SMALL_BYTES = 64 << 20
MAX_MEMBERS = 1_000_000
SECONDS_BETWEEN_CHECKS = 1.0
_CHUNK_BYTES = 1 << 20
_REFUSED = "the archive is damaged or malicious; remove it and download it again"


class ArchiveError(RespikeError):
    """An archive that is damaged, or that would write outside its folder, make links, or fill the disk."""


def is_archive(name: str) -> bool:
    """Whether a file of this name can be unpacked."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def stem(name: str) -> str:
    """The name of an archive without its suffix."""
    suffix = max((suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)), key=len, default="")
    return name[: len(name) - len(suffix)]


def unpack(archive: Path, target: Path, progress: Progress, *, nested: bool = False) -> None:
    """Unpack `archive` to the folder `target`, which must not exist yet.

    If the archive holds a single folder, that folder becomes the target, whatever its name. With `nested`, each archive
    in it becomes a folder of the target. After an interruption there is no target, and the next call starts from the
    beginning. Raises ArchiveError if the archive is damaged or malicious, RespikeError if the disk is full.
    """
    temporary = target.with_name(f".{target.name}.unpacking")
    try:
        if temporary.exists():
            shutil.rmtree(temporary)
        temporary.mkdir(parents=True)
        with progress.task(f"unpack {archive.name}", total=None, unit="bytes") as task:
            content = _unpack_one(archive, temporary / "all", task)
            if nested:
                _unpack_nested(content, temporary / "one", task)
        # the files must reach the disk before the rename does
        os.sync()
        content.rename(target)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack_one(archive: Path, folder: Path, task: Task) -> Path:
    """Unpack one archive; return the folder that holds its content."""
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
        raise ArchiveError(f"{archive} is empty", "remove it and download it again")
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


def _unpack_nested(folder: Path, temporary: Path, task: Task) -> None:
    """Replace each archive in `folder` by a folder, named like the single folder in the archive or like the archive."""
    for archive in sorted(path for path in folder.iterdir() if is_archive(path.name)):
        content = _unpack_one(archive, temporary, task)
        target = folder / (content.name if content != temporary else stem(archive.name))
        if target.exists():
            raise RespikeError(f"{archive.name} and another archive both hold {target.name}", "look at the archives")
        content.rename(target)
        shutil.rmtree(temporary, ignore_errors=True)
        archive.unlink()


def checked_path(name: str, archive: Path) -> PurePosixPath:
    """The path of a member relative to the folder. Raises ArchiveError if it leads out of the folder."""
    path = PurePosixPath(name)
    # a backslash or a drive would lead out on other systems, and no data set has one
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or name[1:2] == ":":
        raise ArchiveError(f"{archive} holds {name!r}, which leads out of its folder", _REFUSED)
    return path


def max_bytes(archive: Path) -> int:
    """The number of bytes to which an archive may unpack."""
    return archive.stat().st_size * MAX_GROWTH + SMALL_BYTES


# --- zip and tar ------------------------------------------------------------------------------------------------------


def unpack_zip(archive: Path, folder: Path, task: Task) -> None:
    """Unpack a zip file into `folder`. Raises ArchiveError; nothing outside `folder` is touched."""
    try:
        with zipfile.ZipFile(archive) as file:
            writer = _BoundedWriter(archive, task)
            for member in file.infolist():
                kind = stat.S_IFMT(member.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise ArchiveError(f"{archive} holds {member.filename!r}, which is no plain file", _REFUSED)
                path = folder / checked_path(to_disk(member.filename), archive)
                if member.is_dir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                with file.open(member) as source:
                    writer.write(source, path)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise ArchiveError(f"{archive} cannot be unpacked: {error}", _REFUSED) from error


def unpack_tar(archive: Path, folder: Path, task: Task) -> None:
    """Unpack a tar file, compressed or not, into `folder`. Raises ArchiveError; nothing outside `folder` is touched."""
    try:
        # names are bytes: by default they would be decoded by the locale
        with tarfile.open(archive, "r:*", encoding="utf-8", errors="surrogateescape") as file:
            writer = _BoundedWriter(archive, task)
            for member in file:
                path = folder / checked_path(to_disk(member.name), archive)
                if member.isdir():
                    path.mkdir(parents=True, exist_ok=True)
                    continue
                source = file.extractfile(member) if member.isreg() else None
                if source is None:
                    raise ArchiveError(f"{archive} holds {member.name!r}, which is no plain file", _REFUSED)
                with source:
                    writer.write(source, path)
                # tarfile keeps every member in memory otherwise
                file.members = []  # type: ignore[attr-defined]
    except (tarfile.TarError, zlib.error, EOFError, ValueError) as error:
        raise ArchiveError(f"{archive} cannot be unpacked: {error}", _REFUSED) from error


class _BoundedWriter:
    """Writes members, and stops at an archive that unpacks to more than any data set would."""

    def __init__(self, archive: Path, task: Task) -> None:
        self._archive, self._task = archive, task
        self._bytes_left, self._members_left = max_bytes(archive), MAX_MEMBERS

    def write(self, source: IO[bytes], path: Path) -> None:
        """Write one member to `path`."""
        self._members_left -= 1
        self._check()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while chunk := source.read(_CHUNK_BYTES):
                self._bytes_left -= len(chunk)
                self._check()
                file.write(chunk)
                self._task.advance(len(chunk))

    def _check(self) -> None:
        if self._bytes_left < 0 or self._members_left < 0:
            raise ArchiveError(f"{self._archive} unpacks to more than a data set would", _REFUSED)


# --- RAR, through a program -------------------------------------------------------------------------------------------

_INSTALL = (
    "install one: `apt install unrar` or `apt install libarchive-tools` (bsdtar), `brew install libarchive`, "
    "`conda install -c conda-forge libarchive`; or unpack the archive by hand"
)
_MALICIOUS = "the archive is malicious; remove it and download it again"


@dataclass(frozen=True, kw_only=True)
class RarProgram:
    """How a program lists and unpacks a RAR file, and how to read its listings.

    `listing`, `kinds` and `unpacking` make the arguments. Lines of `listing` that begin with `prefix` are names. Lines
    of `kinds` that match `kind` give the kind of a member. If such a line also matches `plain`, the member is a file or
    a folder; else it is a link, a device or the like.
    """

    name: str
    listing: Callable[[str], list[str]]
    kinds: Callable[[str], list[str]]
    kind: re.Pattern[bytes]
    plain: re.Pattern[bytes]
    unpacking: Callable[[str, str], list[str]]
    prefix: str = ""


def _seven_zip(name: str) -> RarProgram:
    return RarProgram(
        name=name,
        listing=lambda archive: ["l", "-ba", "-slt", "-p", "--", archive],
        kinds=lambda archive: ["l", "-ba", "-slt", "-p", "--", archive],
        # a link in RAR 5 has a line of its own, which is empty for other members. A link in an older RAR shows only in
        # a Unix mode behind the Windows attributes. An older RAR packed on Windows has no mode, and holds no links
        kind=re.compile(rb"Attributes =|(Symbolic|Hard|Copy) Link = ."),
        plain=re.compile(rb"Attributes = ?[RHSDANTsCOIE8_]* ?([-d]([r-][w-][xsStT-]){3})?$"),
        unpacking=lambda archive, folder: ["x", "-y", "-bd", "-p", f"-o{folder}", "--", archive],
        prefix="Path = ",
    )


# unrar first: only it reads every kind of RAR
RAR_PROGRAMS = (
    RarProgram(
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
    RarProgram(
        name="bsdtar",
        listing=lambda archive: ["-tf", archive],
        # as in `ls -l`: the first letter is l for a symbolic link, h for a hard link
        kinds=lambda archive: ["-tvf", archive],
        kind=re.compile(rb"."),
        plain=re.compile(rb"[-d]"),
        unpacking=lambda archive, folder: ["-xf", archive, "-C", folder, "--no-same-owner", "--no-same-permissions"],
    ),
)


def require_rar_program() -> None:
    """Raise RespikeError, with what to install, if no program that unpacks RAR is installed."""
    if not any(shutil.which(program.name) for program in RAR_PROGRAMS):
        names = ", ".join(program.name for program in RAR_PROGRAMS)
        raise RespikeError(f"RAR archives need a program to unpack them; none of {names} is on the PATH", _INSTALL)


def unpack_rar(archive: Path, folder: Path, task: Task) -> None:
    """Unpack a RAR file into `folder`, which must be empty, with the first program that can.

    Raises ArchiveError if a name leads out of the folder, a member is no plain file, more comes out than of any data
    set, or no program can read the archive. Raises RespikeError if no program is installed.
    """
    require_rar_program()
    problems = []
    for program in RAR_PROGRAMS:
        path = shutil.which(program.name)
        if path is None:
            continue
        try:
            # check the name and kind of all members before a byte is written: a later member may go through a link
            num_names = 0
            for name in _list_names(path, program, archive):
                checked_path(name, archive)
                num_names += 1
            _refuse_links(path, program, archive, num_names)
            _run_bounded([path, *program.unpacking(str(archive), str(folder))], folder, max_bytes(archive), task)
        except _ProgramError as error:
            problems.append(f"{program.name}: {error}")
            shutil.rmtree(folder)
            folder.mkdir()
            continue
        _refuse_special_files(archive, folder)
        return
    raise ArchiveError(
        f"{archive} cannot be unpacked: {'; '.join(problems)}",
        "if the archive is whole, another program may read it: " + _INSTALL,
    )


class _ProgramError(Exception):
    """A program that ended with an error."""


def _list_names(path: str, program: RarProgram, archive: Path) -> Iterator[str]:
    for line in _output_lines([path, *program.listing(str(archive))]):
        text = os.fsdecode(line)
        if text.startswith(program.prefix) and text:
            yield text.removeprefix(program.prefix)


def _refuse_links(path: str, program: RarProgram, archive: Path, num_names: int) -> None:
    """Raise ArchiveError if a member is neither file nor folder, _ProgramError if the kind of a member is missing."""
    num_kinds = 0
    for line in _output_lines([path, *program.kinds(str(archive))]):
        if program.kind.match(line) is None:
            continue
        if program.plain.match(line) is None:
            text = os.fsdecode(line).strip()
            raise ArchiveError(f"{archive} holds a link or the like, which is no plain file: {text}", _MALICIOUS)
        num_kinds += 1
    # a name with a line break counts twice, or the output is translated: the next program is tried
    if num_kinds < num_names:
        raise _ProgramError(f"gives the kind of {num_kinds} of {num_names} members")


def _refuse_special_files(archive: Path, folder: Path) -> None:
    for path in _walk(folder):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            name = path.relative_to(folder)
            raise ArchiveError(f"{archive} holds {str(name)!r}, which is no plain file", _MALICIOUS)


def _run_bounded(command: list[str], folder: Path, limit_bytes: int, task: Task) -> None:
    """Run a program that fills `folder`; stop it when it has written more than the limit."""
    num_reported = 0
    with _started(command, subprocess.DEVNULL) as process:
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS_BETWEEN_CHECKS)
            sizes = [path.lstat().st_size for path in _walk(folder) if not path.is_dir()]
            if sum(sizes) > limit_bytes or len(sizes) > MAX_MEMBERS:
                raise ArchiveError(
                    f"the archive unpacks to more than {limit_bytes:,} bytes, more than a data set would", _REFUSED
                )
            task.advance(sum(sizes) - num_reported)
            num_reported = sum(sizes)
            if process.returncode is not None:
                return


def _output_lines(command: list[str]) -> Iterator[bytes]:
    with tempfile.TemporaryFile() as output, _started(command, output) as process:
        process.wait()
        output.seek(0)
        for line in output:
            yield line.rstrip(b"\r\n")


@contextmanager
def _started(command: list[str], output: IO[bytes] | int) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process that writes to `output`; end it with the block. Raises _ProgramError if it failed."""
    # error messages go to a file: a full pipe that nobody reads would block the process
    with tempfile.TemporaryFile() as errors:
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors, env=environment)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode:
            errors.seek(0)
            lines = errors.read(20_000).decode(errors="replace").strip().splitlines()
            raise _ProgramError(lines[-1] if lines else f"exit code {process.returncode}")


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(parent, name)
