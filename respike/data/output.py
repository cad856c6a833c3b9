"""Output folder of a prepare run: state, locks, index, dataset card."""

import contextlib
import hashlib
import json
import re
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from respike.common.errors import MismatchError, RespikeError
from respike.common.files import (
    canonical_json,
    folder_lock,
    seal,
    unseal,
    write_atomically,
    write_if_changed,
    write_new,
)
from respike.common.storage import RemoteFolder
from respike.common.text import counted
from respike.data import index
from respike.data.plan import STATE_FOLDER, Part, ShardManifest, ShardTask
from respike.data.prepare_config import UNTOLD_SETTINGS, PrepareConfig
from respike.data.prepare_stats import PrepareSpeed
from respike.data.shard import FORMAT_VERSION
from respike.types import VideoListing

# what `files.atomic_writer` makes beside a shard or its mark
_TEMPORARY = re.compile(r"\.(.+\.tar)(?:\.json)?\.[0-9a-f]{8}\.tmp")


@contextmanager
def remove_stale_temp_files(folders: Collection[Path], names: Collection[str]) -> Iterator[None]:
    """Leave no temporary file of the shards `names` in the folders, nor let the block meet one that was left.

    A worker that is killed leaves its own; a run that is stopped time and again would fill the disk with them.
    """
    _clear(folders, names)
    try:
        yield
    finally:
        _clear(folders, names)


def _clear(folders: Collection[Path], names: Collection[str]) -> None:
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            match = _TEMPORARY.fullmatch(path.name)
            if match and match[1] in names:
                path.unlink(missing_ok=True)


_CARD = """---
pretty_name: {name}
task_categories:
- video-classification
tags:
- webdataset
- events
- respike
configs:
- config_name: default
  data_files:
{files}
---

# {name}

Key frames and sparse residual events of {written} in {classes}, prepared by
[respike](https://pypi.org/project/respike/) as WebDataset shards: {clips} of {clip_length} frames, one key
frame in {stride}, events of contrast threshold {threshold} in {color}, {density:.1%} of them not zero.

| subset | shards | clips | bytes |
| --- | ---: | ---: | ---: |
{rows}

Of {listed} {skipped:,} could not be read; `skipped.jsonl` names them and says why.

Each sample holds `key00.jpg` … (one JPEG a group), `events` (the residual events, zstd-compressed) and `json` (video,
label, class, frame indices and times). `dataset.json` lists the shards with their SHA-256.

```python
from respike.data import make_loader, open_shards

loader = make_loader(open_shards("."), batch_size=32, training=False, image_size=224)
```
"""


def dataset_card(index: dict[str, Any]) -> str:
    """The card of the shards that `index` (the content of dataset.json) lists."""
    subsets = sorted({shard["subset"] for shard in index["shards"]})
    rows, files = [], []
    for subset in subsets:
        shards = [shard for shard in index["shards"] if shard["subset"] == subset]
        clips, size = (sum(shard[name] for shard in shards) for name in ("num_samples", "num_bytes"))
        rows.append(f"| {subset} | {len(shards):,} | {clips:,} | {size:,} |")
        # hubs know the third split by its long name
        split = "validation" if subset == "val" else subset
        files.append(f"  - split: {split}\n    path: {subset}-*.tar")
    settings, videos = index["settings"], index["videos"]
    return _CARD.format(
        name=f"{index['dataset']}" + (f" split {index['split']}" if index["split"] else ""),
        files="\n".join(files),
        rows="\n".join(rows),
        classes=counted(len(index["classes"]), "class"),
        clips=counted(index["num_clips"], "clip"),
        density=index["event_density"],
        clip_length=settings["clip_length"],
        stride=settings["stride"],
        threshold=settings["threshold"],
        color=settings["color"],
        listed=counted(videos["listed"], "listed video"),
        written=counted(videos["written"], "video"),
        skipped=videos["skipped"],
    )


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

    def check_settings(self, listing: VideoListing, settings: PrepareConfig, *, retry: bool) -> None:
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


@dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """What a run left behind: `listed` = `written` + `skipped` videos, always.

    `num_bytes` and `num_clips` are those of all shards, also the ones found finished; `num_built` shards were made by
    this run in `seconds`, with a `speed` that speaks of those alone. `event_density` is the share of stored events that
    are not zero. `num_partial` of the written videos were damaged and kept up to the damage. With `part` all counts are
    those of that part. `warnings` are those of the listing.
    """

    out: Path | str
    listed: int
    written: int
    skipped: int
    num_clips: int
    num_shards: int
    num_built: int
    num_bytes: int
    event_density: float
    seconds: float
    skipped_videos: tuple[index.SkippedVideo, ...]
    num_partial: int = 0
    speed: PrepareSpeed = field(default_factory=PrepareSpeed)
    part: Part | None = None
    warnings: tuple[str, ...] = ()

    @property
    def skipped_path(self) -> str:
        """Where the skipped videos are named."""
        return f"{self.out}/{index.SKIPPED_NAME}"


def summarise(out: Path | str, marks: Sequence[ShardManifest], part: Part | None = None) -> PrepareSummary:
    """Count what stands in the shards that `marks` promise."""
    rows, skipped, shards = _gather(marks)
    return PrepareSummary(
        out=out,
        listed=len(rows) + len(skipped),
        written=len(rows),
        skipped=len(skipped),
        num_clips=sum(shard["num_samples"] for shard in shards),
        num_shards=len(shards),
        num_built=0,
        num_bytes=sum(shard["num_bytes"] for shard in shards),
        event_density=_density(marks),
        seconds=0.0,
        skipped_videos=tuple(index.SkippedVideo(**row) for row in skipped),
        num_partial=sum("partial" in row for row in rows),
        part=part,
    )


def write_index(
    out: Path, head: Mapping[str, Any], settings: Mapping[str, Any], marks: Sequence[ShardManifest]
) -> None:
    """Write the index, the list of what was skipped and the card, for shards in the order of `marks`.

    `head` holds `format_version, dataset, split, classes, evaluation_subset, listed`. Files that stand there as they
    should are left.
    """
    rows, skipped, shards = _gather(marks)
    assert head["listed"] == len(rows) + len(skipped)
    videos_text, skipped_text = index.jsonl(rows), index.jsonl(skipped)
    content = {
        "format_version": head["format_version"],
        "dataset": head["dataset"],
        "split": head["split"],
        "evaluation_subset": head["evaluation_subset"],
        "classes": list(head["classes"]),
        "settings": dict(settings),
        "videos": {
            "listed": head["listed"],
            "written": len(rows),
            "skipped": len(skipped),
            "rows_sha256": hashlib.sha256(videos_text.encode("utf-8", "surrogateescape")).hexdigest(),
            "skipped_sha256": hashlib.sha256(skipped_text.encode("utf-8", "surrogateescape")).hexdigest(),
        },
        "num_clips": sum(shard["num_samples"] for shard in shards),
        "event_density": _density(marks),
        "shards": shards,
    }
    sealed = seal(content, indent=1)
    index_path = out / index.INDEX_NAME
    if index_path.exists() and index_path.read_bytes() != sealed.encode("utf-8", "surrogateescape"):
        # between an old index and new rows no reader could tell what is right
        index_path.unlink()
    write_if_changed(out / index.VIDEOS_NAME, videos_text)
    write_if_changed(out / index.SKIPPED_NAME, skipped_text)
    write_if_changed(out / CARD_NAME, dataset_card(content))
    # the index last: where it stands, everything it names stands
    write_if_changed(index_path, sealed)


def _gather(marks: Sequence[ShardManifest]) -> tuple[list[dict[str, Any]], list[dict[str, str]], list[dict[str, Any]]]:
    rows = [row for mark in marks for row in mark["videos"]]
    skipped = sorted((row for mark in marks for row in mark["skipped"]), key=lambda row: row["video"])
    return rows, skipped, [mark["shard"] for mark in marks if mark["shard"]]


def _density(marks: Sequence[ShardManifest]) -> float:
    num_samples = sum(mark["num_event_samples"] for mark in marks)
    return round(sum(mark["num_events"] for mark in marks) / num_samples, 6) if num_samples else 0.0
