"""The state of an output folder, in OUT/.respike: its settings, its plan, which shards are finished, who is at work."""

import contextlib
import json
import re
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from respike.data import index
from respike.data.building.plan import STATE_FOLDER, Part, ShardTask
from respike.data.format import FORMAT_VERSION
from respike.data.remote.storage import RemoteFolder
from respike.data.settings import UNTOLD_SETTINGS, PrepareSettings
from respike.errors import MismatchError, RespikeError
from respike.files import canonical_json, folder_lock, unseal, write_atomically, write_if_changed, write_new
from respike.sample import VideoListing

CARD_NAME = "README.md"
OURS = re.compile(
    f"{index.SHARD_NAME.pattern}|"
    + "|".join(map(re.escape, (index.INDEX_NAME, index.VIDEOS_NAME, index.SKIPPED_NAME, CARD_NAME)))
)
_MARK_FIELDS = {"members", "fingerprint", "keep_partial", "shard", "videos", "skipped"}
_MARK_FIELDS |= {"num_events", "num_event_samples"}
LOCK_NAME = "lock"
# folders whose settings name no version hold this one
_UNTOLD_VERSION = 1
PART_LOCK = re.compile(r"part-(\d+)-of-(\d+)\.lock")


class OutputState:
    """What is known of the output folder `out` beside its content.

    `name` is what people call it; `remote` where its content lies, if that is not `out` (see `RemoteOutput`).
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.name = str(out)
        self.remote: RemoteFolder | None = None
        self.folder = out / STATE_FOLDER
        self._settings = self.folder / "settings.json"
        self._plan = self.folder / "plan.json"

    def make(self) -> None:
        """Make the folder, and find out before an hour of decoding whether it can be written to.

        Raises RespikeError where it cannot, or where files stand there that respike would write over.
        """
        with contextlib.suppress(OSError):
            self._refuse_foreign()
        try:
            (self.folder / "done").mkdir(parents=True, exist_ok=True)
            trial = self.folder / f"writable-{uuid.uuid4().hex[:8]}"
            trial.write_bytes(b"")
            trial.unlink()
        except OSError as error:
            raise RespikeError(f"cannot write to {self.name}: {error.strerror}", "choose another --out") from error

    def _refuse_foreign(self) -> None:
        if not self.out.is_dir() or self._settings.is_file():
            return
        foreign = sorted(path.name for path in self.out.iterdir() if OURS.fullmatch(path.name))
        if foreign:
            raise RespikeError(
                f"{self.name} holds {foreign[0]}, and respike keeps no record of having made it there",
                "give another --out; respike touches only what it wrote itself",
            )

    @contextmanager
    def lock(self, part: Part | None = None) -> Iterator[None]:
        """Hold the folder, or with `part` a share of it, for the length of the block.

        Parts of one count work side by side; all else works alone. Raises RespikeError that names who is in the way.
        """
        with ExitStack() as held:
            if part is None:
                held.enter_context(folder_lock(self.folder / LOCK_NAME, "respike prepare"))
                # a whole run holds its lock while it looks for parts, a part its own while it looks for a whole run:
                # whoever of two comes second sees the first
                self._refuse_parts(count=None)
            else:
                name = f"part-{part.number}-of-{part.count}.lock"
                held.enter_context(folder_lock(self.folder / name, f"respike prepare --part {part}"))
                self._refuse_parts(count=part.count)
                with folder_lock(self.folder / LOCK_NAME, f"start of part {part}", timeout_seconds=4):
                    pass
            yield

    def _refuse_parts(self, count: int | None) -> None:
        for path in sorted(self.folder.glob("part-*.lock")):
            match = PART_LOCK.fullmatch(path.name)
            if match and int(match[2]) != count:
                with folder_lock(path, "respike prepare looks for parts"):
                    pass

    def check_settings(self, listing: VideoListing, settings: PrepareSettings, *, retry: bool) -> None:
        """Remember what the folder is made of, or refuse to mix two kinds of shards in it.

        With `retry` damaged videos may be kept in part from now on: that concerns only what was skipped.
        """
        # through JSON and back, so that what was read compares equal to what would be written
        now = json.loads(canonical_json(_header(listing) | settings.to_json()))
        text = canonical_json(now)
        if not self._settings.is_file() and write_new(self._settings, text):
            return
        usual = {"keep_partial": False, "format_version": _UNTOLD_VERSION, **UNTOLD_SETTINGS}
        before, now = usual | self._read(self._settings), usual | now
        changed = sorted(name for name in now if before.get(name) != now[name])
        if changed == ["keep_partial"] and settings.keep_partial and retry:
            write_atomically(self._settings, text)
            return
        if changed:
            what = ", ".join(
                name if name == "classes" else f"{name} {before.get(name)} → {now[name]}" for name in changed
            )
            hint = f"give another --out, or --overwrite to make {self.name} anew"
            if changed == ["keep_partial"] and settings.keep_partial:
                hint = f"add --retry-skipped to go on with what was skipped, or {hint}"
            if changed == ["format_version"]:
                hint = f"what is finished there can still be read; to make more, {hint}"
            raise MismatchError(f"{self.name} was prepared with other settings: {what}", hint)

    def write_plan(self, listing: VideoListing, tasks: Sequence[ShardTask]) -> None:
        """Remember which shards there are to be, for a later `read_plan`."""
        shards = [{"name": t.name, "num_videos": len(t.videos), "members": t.members} for t in tasks]
        plan = {"evaluation_subset": listing.evaluation_subset, "listed": len(listing.videos), "shards": shards}
        write_if_changed(self._plan, canonical_json(plan))

    def read_plan(self) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
        """The head of the index, the settings and the planned shards. Raises RespikeError where none are known."""
        if not self._plan.is_file() or not self._settings.is_file():
            raise RespikeError(f"{self.name} holds no run of `respike prepare`", "give the folder that was its --out")
        settings = self._read(self._settings, {"dataset", "split", "classes"})
        plan = self._read(self._plan, {"evaluation_subset", "listed", "shards"})
        shards = plan["shards"]
        if not all(isinstance(shard, dict) and shard.keys() >= {"name", "members"} for shard in shards):
            raise self._senseless(self._plan, "it names no shards")
        head = {name: settings.pop(name) for name in ("dataset", "split", "classes")}
        head["format_version"] = settings.pop("format_version", _UNTOLD_VERSION)
        return head | {name: plan[name] for name in ("evaluation_subset", "listed")}, settings, shards

    def name_parts(self, missing: Sequence[str], names: Sequence[str]) -> str:
        """Say which runs make the missing ones of the shards `names`, as far as the folder tells how it was shared."""
        counts = {int(match[2]) for path in self.folder.iterdir() if (match := PART_LOCK.fullmatch(path.name))}
        if len(counts) != 1:
            return "run the same `respike prepare` again: finished shards are kept"
        (count,) = counts
        numbers = sorted({names.index(name) % count + 1 for name in missing})
        return f"run again with --part {', '.join(f'{number}/{count}' for number in numbers)}"

    def _read(self, path: Path, fields: Collection[str] = ()) -> dict[str, Any]:
        try:
            value = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise self._senseless(path, str(error)) from error
        if not isinstance(value, dict) or not value.keys() >= set(fields):
            raise self._senseless(path, "it does not hold what it should")
        return value

    def _senseless(self, path: Path, reason: str) -> RespikeError:
        return RespikeError(f"{path} cannot be read: {reason}", "use --overwrite to make the folder anew")

    def read_mark(self, name: str) -> dict[str, Any] | None:
        """The finished-mark of a shard, if it is whole and the shard it promises stands there in its full size."""
        try:
            mark = unseal((self.folder / "done" / f"{name}.json").read_bytes())
            # so that it compares equal to what `build_shard` returns
            del mark["sha256"]
            if mark["shard"] is not None and self.size_of(name) != mark["shard"]["num_bytes"]:
                return None
            if not mark.keys() >= _MARK_FIELDS:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return mark

    def size_of(self, name: str) -> int | None:
        """Bytes of a shard that stands in the folder; None where there is none."""
        try:
            return (self.out / name).stat().st_size
        except OSError:
            return None

    def drop_index(self) -> None:
        """Take the index away: what it names is about to change."""
        (self.out / index.INDEX_NAME).unlink(missing_ok=True)

    def publish(self) -> None:
        """Let readers see the index that was written; here they do already."""

    def empty(self) -> None:
        """Remove all that respike wrote. Raises RespikeError where the folder is not respike's."""
        if not self._settings.is_file():
            self._refuse_foreign()
        # the index first: what follows is no data set any more
        paths = [self.out / index.INDEX_NAME, *(path for path in self.out.iterdir() if OURS.fullmatch(path.name))]
        paths += [*(self.folder / "done").iterdir(), self._plan, self._settings]
        for path in paths:
            path.unlink(missing_ok=True)

    def drop_strangers(self, names: Collection[str]) -> None:
        """Remove all but the shards `names`: what an earlier plan left, and temporary files of killed workers."""
        for path in list(self.out.iterdir()):
            # a shard without a mark, too: its worker was killed between the two
            if index.SHARD_NAME.fullmatch(path.name) and path.name not in names:
                # the index first: it may still promise this one
                self.drop_index()
                path.unlink()
        for mark in list((self.folder / "done").iterdir()):
            if mark.name.removesuffix(".json") not in names:
                mark.unlink()
        for folder in (self.out, self.folder, self.folder / "done"):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)

    def log(self, record: dict[str, Any]) -> None:
        """Add a line to the log of runs; unlike all else it may speak of times and hosts."""
        with (self.folder / "runs.jsonl").open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(canonical_json(record) + "\n")


def _header(listing: VideoListing) -> dict[str, Any]:
    head = {"dataset": listing.dataset, "split": listing.split, "classes": listing.classes}
    return head | {"format_version": FORMAT_VERSION}
