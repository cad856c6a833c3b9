"""RARs for tests: the RAR 5 format without compression, and a program that reads no more than that."""

import stat
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path

_SIGNATURE = b"Rar!\x1a\x07\x01\x00"
_UNIX = 1


def write_rar(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a RAR 5 archive of stored files, with names as they are given, however harmful."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = [_SIGNATURE, _block(1, vint(0))]
    for name, content in files.items():
        encoded = name.encode()
        fields = vint(0x04) + vint(len(content)) + vint(0o100644) + zlib.crc32(content).to_bytes(4, "little")
        fields += vint(0) + vint(_UNIX) + vint(len(encoded)) + encoded
        blocks.append(_block(2, fields, content))
    path.write_bytes(b"".join([*blocks, _block(5, vint(0))]))
    return path


def vint(number: int) -> bytes:
    """A number as RAR 5 writes it: seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(0x80 | number & 0x7F)
        number >>= 7
    return bytes([*out, number])


def _block(kind: int, fields: bytes, data: bytes | None = None) -> bytes:
    head = vint(kind) + (vint(0) if data is None else vint(0x02) + vint(len(data))) + fields
    sized = vint(len(head)) + head
    return zlib.crc32(sized).to_bytes(4, "little") + sized + (data or b"")


# called as unrar is: `lb -p- ARCHIVE` lists names, `x -y -o+ -p- ARCHIVE FOLDER/` unpacks
_READER = """#!{python}
import os, sys

def vint(data, at):
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 0x80:
            return number, at

def members(data):
    if data[:8] != b"Rar!\\x1a\\x07\\x01\\x00":
        sys.exit("is not RAR archive")
    at = 8
    while True:
        size, start = vint(data, at + 4)
        kind, here = vint(data, start)
        flags, here = vint(data, here)
        length, here = vint(data, here) if flags & 2 else (0, here)
        end = start + size
        if kind == 5:
            return
        if kind == 2:
            if end + length > len(data):
                sys.exit("Unexpected end of archive")
            for _ in range(3):
                _, here = vint(data, here)
            here += 4
            for _ in range(2):
                _, here = vint(data, here)
            count, here = vint(data, here)
            yield data[here:here + count].decode(), data[end:end + length]
        at = end + length

command, *options = sys.argv[1:]
if command == "lb":
    for name, _ in members(open(options[-1], "rb").read()):
        print(name)
else:
    for name, content in members(open(options[-2], "rb").read()):
        path = os.path.join(options[-1], name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        {extra}
        open(path, "wb").write(content)
"""


def write_unrar(folder: Path, *, extra: str = "pass") -> Path:
    """Write a program `unrar` that reads what `write_rar` writes; `extra` is run before each file is written."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "unrar"
    path.write_text(_READER.format(python=sys.executable, extra=extra))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
