"""FaultyFileSystem: a store for fsspec that fails as `.faults.json` in its folder says, in every process."""

import json
import os
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem
from respike.common.storage import PROTOCOLS_VARIABLE

_COUNT, _FAULTS = ".writes", ".faults.json"


class FaultyFileSystem(LocalFileSystem):
    """Files of a folder, at `faulty://PATH`.

    Faults are counted over all processes. `fail_every` n: each n-th write raises; `cut_every` n: each n-th keeps its
    first half without an error; `flip_every` n: each n-th changes one bit; `gone_after` n: after n writes everything
    raises.
    """

    protocol = "faulty"
    cachable = False

    @classmethod
    def _strip_protocol(cls, path):
        return str(path).removeprefix("faulty://").rstrip("/")

    def put_file(self, lpath, rpath, **options):
        self._write(rpath, lambda: Path(rpath).write_bytes(Path(lpath).read_bytes()))

    def pipe_file(self, path, value, mode="overwrite", **options):
        def write():
            with Path(path).open("xb" if mode == "create" else "wb") as file:
                file.write(value)

        self._write(path, write)

    def cat_file(self, path, **options):
        self._reach(path)
        return Path(path).read_bytes()

    def info(self, path, **options):
        self._reach(path)
        return super().info(path, **options)

    def ls(self, path, detail=False, **options):
        self._reach(path)
        return [entry for entry in super().ls(path, detail=detail, **options) if not is_control(entry)]

    def _open(self, path, mode="rb", **options):
        self._reach(path)
        return super()._open(path, mode=mode, **options)

    def _write(self, path, write):
        root, faults = faults_of(path)
        with (root / _COUNT).open("ab") as file:
            file.write(b".")
        self._reach(path)
        count = (root / _COUNT).stat().st_size
        if due(faults.get("fail_every"), count):
            raise OSError("connection reset by peer")
        write()
        content = Path(path).read_bytes()
        if due(faults.get("cut_every"), count):
            Path(path).write_bytes(content[: len(content) // 2])
        if due(faults.get("flip_every"), count) and content:
            Path(path).write_bytes(bytes([content[0] ^ 1]) + content[1:])

    def _reach(self, path):
        root, faults = faults_of(path)
        count = (root / _COUNT).stat().st_size if (root / _COUNT).exists() else 0
        if count > faults.get("gone_after", count):
            raise ConnectionError("no route to host")


def due(every, count):
    return every is not None and count % every == 0


def is_control(entry):
    name = entry["name"] if isinstance(entry, dict) else entry
    return name.endswith((_COUNT, _FAULTS))


def faults_of(path):
    for folder in Path(path).parents:
        if (folder / _FAULTS).exists():
            return folder, json.loads((folder / _FAULTS).read_text())
    raise AssertionError(f"{path} is in no faulty store")


def make_store(root: Path, **faults: int) -> str:
    """Make a store in the folder `root`, or change its faults; return the address of the set in it."""
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    os.environ[PROTOCOLS_VARIABLE] = "faulty"
    root.mkdir(exist_ok=True)
    (root / _FAULTS).write_text(json.dumps(faults))
    (root / _COUNT).unlink(missing_ok=True)
    return f"faulty://{root}/set"
