"""RAR: unpacked by whichever program is installed, as no free library reads every RAR."""

import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from respike.data.obtain.archives import MOST_MEMBERS, ArchiveError, checked_path, most_bytes
from respike.errors import RespikeError
from respike.progress import Task

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
