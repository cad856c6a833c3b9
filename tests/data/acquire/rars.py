"""RAR files for tests: the RAR 5 format without compression, and programs that read only that."""

import stat
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path

_SIGNATURE = b"Rar!\x1a\x07\x01\x00"
_UNIX = 1
_REDIRECTION, _SYMBOLIC_LINK = 5, 1


def write_rar(path: Path, files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> Path:
    """Write a RAR 5 archive of symbolic links followed by stored files; any name is allowed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = [_SIGNATURE, _block(1, vint(0))]
    for name, target in (links or {}).items():
        encoded, aim = name.encode(), target.encode()
        record = vint(_REDIRECTION) + vint(_SYMBOLIC_LINK) + vint(0) + vint(len(aim)) + aim
        fields = vint(0) + vint(0) + vint(0o120777) + vint(0) + vint(_UNIX) + vint(len(encoded)) + encoded
        blocks.append(_block(2, fields, b"", extra=vint(len(record)) + record))
    for name, content in files.items():
        encoded = name.encode()
        fields = vint(0x04) + vint(len(content)) + vint(0o100644) + zlib.crc32(content).to_bytes(4, "little")
        fields += vint(0) + vint(_UNIX) + vint(len(encoded)) + encoded
        blocks.append(_block(2, fields, content))
    path.write_bytes(b"".join([*blocks, _block(5, vint(0))]))
    return path


def vint(number: int) -> bytes:
    """A number in the form of RAR 5: seven bits in each byte, lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(0x80 | number & 0x7F)
        number >>= 7
    return bytes([*out, number])


def _block(kind: int, fields: bytes, data: bytes | None = None, extra: bytes = b"") -> bytes:
    flags = (0x01 if extra else 0) | (0 if data is None else 0x02)
    sizes = (vint(len(extra)) if extra else b"") + (b"" if data is None else vint(len(data)))
    head = vint(kind) + vint(flags) + sizes + fields + extra
    sized = vint(len(head)) + head
    return zlib.crc32(sized).to_bytes(4, "little") + sized + (data or b"")


# understands the arguments of each known program that unpacks RAR, depending on its own name
_READER = """#!{python}
import os, sys

def vint(data, at):
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 0x80:
            return number, at

def members(path):
    data = open(path, "rb").read()
    if data[:8] != b"Rar!\\x1a\\x07\\x01\\x00":
        sys.exit("is not RAR archive")
    at = 8
    while True:
        size, start = vint(data, at + 4)
        kind, here = vint(data, start)
        flags, here = vint(data, here)
        extra, here = vint(data, here) if flags & 1 else (0, here)
        length, here = vint(data, here) if flags & 2 else (0, here)
        end = start + size
        if kind == 5:
            return
        if kind == 2:
            if end + length > len(data):
                sys.exit("Unexpected end of archive")
            has_crc, here = vint(data, here)
            for _ in range(2):
                _, here = vint(data, here)
            here += 4 if has_crc & 4 else 0
            for _ in range(2):
                _, here = vint(data, here)
            count, here = vint(data, here)
            name, target = data[here:here + count].decode(), None
            if extra:
                # size, type of record, type of link, flags, length of the target: a byte each
                target = data[end - extra + 5:end].decode()
            yield name, data[end:end + length], target
        at = end + length

def unpack(archive, folder):
    for name, content, target in members(archive):
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if target is not None:
            os.symlink(target, path)
            continue
        {extra}
        open(path, "wb").write(content)

program, (command, *options) = os.path.basename(sys.argv[0]), sys.argv[1:]
if program == "bsdtar" and command == "-xf":
    unpack(options[0], options[2])
elif program == "bsdtar":
    for name, content, target in members(options[0]):
        mode = "-rw-r--r--" if target is None else "lrwxrwxrwx"
        told = f"{{mode}}  0 0      0 {{len(content):11}} Jan  1  2024 " if command == "-tvf" else ""
        print(told + name + (f" -> {{target}}" if told and target is not None else ""))
elif program.startswith("7z") and command == "x":
    unpack(options[5], options[3].removeprefix("-o"))
elif program.startswith("7z"):
    for name, content, target in members(options[4]):
        mode = "-rw-r--r--" if target is None else "lrwxrwxrwx"
        print(f"Path = {{name}}\\nFolder = -\\nAttributes = A {{mode}}")
        print(f"Symbolic Link = {{target or ''}}\\nHard Link = \\n")
elif command == "x":
    unpack(options[-2], options[-1])
elif command == "lb":
    for name, _, _ in members(options[-1]):
        print(name)
elif command == "lt":
    print(f"\\nUNRAR 7.00 freeware\\n\\nArchive: {{options[-1]}}\\nDetails: RAR 5\\n")
    for name, _, target in members(options[-1]):
        kind = "File" if target is None else f"Unix symbolic link\\n      Target: {{target}}"
        print(f"        Name: {{name}}\\n        Type: {{kind}}\\n  Attributes: -rw-r--r--\\n")
else:
    sys.exit(f"unknown command {{command}}")
"""


def write_unrar(folder: Path, *, extra: str = "pass", name: str = "unrar") -> Path:
    """Write a program `name` that reads the archives of `write_rar`; `extra` is code that runs before each file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(_READER.format(python=sys.executable, extra=extra))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
