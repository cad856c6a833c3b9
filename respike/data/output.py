"""Output of a prepare run: the folder with its locks and records, the index, the dataset card, the summary."""

import contextlib
import json
import re
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from respike.common.errors import MismatchError, RespikeError, SettingError
from respike.common.files import (
    INDEX_NAME,
    canonical_json,
    folder_lock,
    seal,
    sha256_of_bytes,
    unseal,
    write_atomically,
    write_if_changed,
    write_new,
)
from respike.common.storage import RemoteFolder
from respike.common.text import counted
from respike.data.index import (
    CARD_NAME,
    MANIFEST_FOLDER,
    SET_FILE_NAME,
    SHARD_NAME,
    SKIPPED_NAME,
    STATE_FOLDER,
    VIDEOS_NAME,
    SkippedVideo,
    jsonl,
    manifest_name,
)
from respike.data.plan import Part, ShardManifest, ShardTask
from respike.data.prepare_config import OMITTED_DEFAULTS, PrepareConfig
from respike.data.prepare_stats import PrepareSpeed
from respike.data.shard import FORMAT_VERSION
from respike.types import VideoListing

SETTINGS_NAME = f"{STATE_FOLDER}/settings.json"
PLAN_NAME = f"{STATE_FOLDER}/plan.json"
LOG_NAME = f"{STATE_FOLDER}/runs.jsonl"
LOCK_NAME = "lock"
PART_LOCK = re.compile(r"part-(\d+)-of-(\d+)\.lock")
_MANIFEST_FIELDS = {"members", "fingerprint", "keep_partial", "shard", "videos", "skipped"}
_MANIFEST_FIELDS |= {"num_events", "num_event_samples"}
# the version of folders whose settings name none
_FIRST_VERSION = 1
_TEMPORARY_FILE = re.compile(r"\..*\.tmp")
# a temporary file beside a shard or its manifest, as `files.atomic_writer` names it
_TEMPORARY_SHARD = re.compile(r"\.(.+\.tar)(?:\.json)?\.[0-9a-f]{8}\.tmp")


class OutputState:
    """The output folder `out` of a prepare run, and what runs remember in it.

    File names are relative to the folder. `name` is what messages call it. `remote` is None; `RemoteOutput` differs.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.name = str(out)
        self.remote: RemoteFolder | None = None

    def file_names(self, folder: str = "") -> list[str]:
        """Return the names of the files in a folder, sorted; none if there is no such folder."""
        path = self.out / folder
        return sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []

    def remove(self, name: str) -> None:
        """Remove a file, if there is one."""
        (self.out / name).unlink(missing_ok=True)

    def create(self) -> None:
        """Make the folder and check that it can be written to, before an hour of decoding.

        Raises SettingError if it cannot, or if it holds files of others that respike would replace.
        """
        with contextlib.suppress(OSError):
            self._refuse_foreign_files()
        try:
            (self.out / MANIFEST_FOLDER).mkdir(parents=True, exist_ok=True)
            trial = self.out / STATE_FOLDER / f"writable-{uuid.uuid4().hex[:8]}"
            trial.write_bytes(b"")
            trial.unlink()
        except OSError as error:
            raise SettingError(
                f"cannot write to {self.name}: {error.strerror}", "choose another output folder", setting="out"
            ) from error

    def _refuse_foreign_files(self) -> None:
        if (self.out / SETTINGS_NAME).is_file():
            return
        foreign = [name for name in self.file_names() if SET_FILE_NAME.fullmatch(name)]
        if foreign:
            raise SettingError(
                f"{self.name} holds {foreign[0]}, and there is no record that respike wrote it",
                "choose another output folder; respike replaces only files that it wrote itself",
                setting="out",
            )

    @contextmanager
    def lock(self, part: Part | None = None) -> Iterator[None]:
        """Hold the folder, or with `part` a share of it, for the length of the block.

        Different parts of one count work side by side; any other run works alone. Raises RespikeError that names the
        run that holds the folder.
        """
        folder = self.out / STATE_FOLDER
        with ExitStack() as held:
            if part is None:
                held.enter_context(folder_lock(folder / LOCK_NAME, "respike prepare"))
                # a whole run looks for parts while it holds its lock, a part for a whole run while it holds its own:
                # the second of the two always sees the first
                self._refuse_parts(count=None)
            else:
                held.enter_context(folder_lock(folder / part_lock_name(part), f"respike prepare, part {part}"))
                self._refuse_parts(count=part.count)
                with folder_lock(folder / LOCK_NAME, f"start of part {part}", timeout_seconds=4):
                    pass
            yield

    def _refuse_parts(self, count: int | None) -> None:
        """Raise RespikeError if a part of another count is at work."""
        for name in self.file_names(STATE_FOLDER):
            match = PART_LOCK.fullmatch(name)
            if match and int(match[2]) != count:
                with folder_lock(self.out / STATE_FOLDER / name, "respike prepare looks for parts"):
                    pass

    def check_settings(self, listing: VideoListing, config: PrepareConfig, *, retry: bool) -> None:
        """Record what the folder is made from. Raises MismatchError if it was made from something else.

        With `retry`, `keep_partial` may be turned on: that concerns only videos that were skipped.
        """
        head = {"dataset": listing.dataset, "split": listing.split, "classes": listing.classes}
        head["format_version"] = FORMAT_VERSION
        # through JSON and back, so that values compare equal to those that are read from the file
        now = json.loads(canonical_json(head | config.to_json()))
        text = canonical_json(now)
        path = self.out / SETTINGS_NAME
        if not path.is_file() and write_new(path, text):
            return
        defaults = {"keep_partial": False, "format_version": _FIRST_VERSION, **OMITTED_DEFAULTS}
        before, now = defaults | self._read(SETTINGS_NAME), defaults | now
        changed = sorted(name for name in now if before.get(name) != now[name])
        turns_keep_partial_on = changed == ["keep_partial"] and config.keep_partial
        if turns_keep_partial_on and retry:
            write_atomically(path, text)
        elif changed:
            what = ", ".join(
                name if name == "classes" else f"{name} {before.get(name)} → {now[name]}" for name in changed
            )
            hint = f"choose another output folder, or use overwrite to replace all shards of {self.name}"
            if turns_keep_partial_on:
                hint = f"use retry-skipped to try the skipped videos again with it, or {hint}"
            if changed == ["format_version"]:
                hint = f"its finished shards can still be read; to make new ones, {hint}"
            raise MismatchError(f"{self.name} was prepared with other settings: {what}", hint)

    def write_plan(self, listing: VideoListing, tasks: Sequence[ShardTask]) -> None:
        """Record which shards are to be made, for a later `read_plan`."""
        shards = [{"name": task.name, "num_videos": len(task.videos), "members": task.members} for task in tasks]
        plan = {"evaluation_subset": listing.evaluation_subset, "listed": len(listing.videos), "shards": shards}
        write_if_changed(self.out / PLAN_NAME, canonical_json(plan))

    def read_plan(self) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
        """Return the head of the index, the settings and the planned shards. Raises RespikeError if none are known."""
        if not (self.out / PLAN_NAME).is_file() or not (self.out / SETTINGS_NAME).is_file():
            raise RespikeError(
                f"{self.name} is not the output of `respike prepare`", "give the output folder of a prepare run"
            )
        settings = self._read(SETTINGS_NAME, {"dataset", "split", "classes"})
        plan = self._read(PLAN_NAME, {"evaluation_subset", "listed", "shards"})
        shards = plan["shards"]
        if not all(isinstance(shard, dict) and shard.keys() >= {"name", "members"} for shard in shards):
            raise self._invalid(PLAN_NAME, "it names no shards")
        head = {name: settings.pop(name) for name in ("dataset", "split", "classes")}
        head["format_version"] = settings.pop("format_version", _FIRST_VERSION)
        return head | {name: plan[name] for name in ("evaluation_subset", "listed")}, settings, shards

    def _read(self, name: str, fields: Collection[str] = ()) -> dict[str, Any]:
        try:
            value = json.loads((self.out / name).read_bytes())
        except (OSError, ValueError) as error:
            raise self._invalid(name, str(error)) from error
        if not isinstance(value, dict) or not value.keys() >= set(fields):
            raise self._invalid(name, "fields are missing")
        return value

    def _invalid(self, name: str, reason: str) -> RespikeError:
        return RespikeError(
            f"{self.name}/{name} cannot be read: {reason}", "use overwrite to make all shards of the folder again"
        )

    def suggest_parts(self, missing: Sequence[str], names: Sequence[str]) -> str:
        """Say how to make the missing ones of the shards `names`: the parts to run, if the number of parts is known."""
        counts = self.part_counts()
        if len(counts) != 1:
            return "run the same `respike prepare` again; finished shards are kept"
        (count,) = counts
        numbers = sorted({names.index(name) % count + 1 for name in missing})
        return f"prepare these parts: {', '.join(f'{number}/{count}' for number in numbers)}"

    def part_counts(self) -> set[int]:
        """Return the numbers of parts into which runs shared the folder."""
        matches = (PART_LOCK.fullmatch(name) for name in self.file_names(STATE_FOLDER))
        return {int(match[2]) for match in matches if match}

    def read_manifest(self, name: str) -> ShardManifest | None:
        """Return the manifest of a shard; None if it is missing or damaged, or if the shard has another size."""
        try:
            manifest = unseal((self.out / manifest_name(name)).read_bytes())
            # so that it compares equal to what `build_shard` returns
            del manifest["sha256"]
            if manifest["shard"] is not None and self.shard_size(name) != manifest["shard"]["num_bytes"]:
                return None
            if not manifest.keys() >= _MANIFEST_FIELDS:
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return manifest

    def shard_size(self, name: str) -> int | None:
        """Return the bytes of a shard in the folder; None if there is none."""
        try:
            return (self.out / name).stat().st_size
        except OSError:
            return None

    def publish(self) -> None:
        """Let readers see the index that was written. In a local folder they see it already."""

    def clear(self) -> None:
        """Remove everything that respike wrote. Raises SettingError if the folder holds files of others."""
        self._refuse_foreign_files()
        # the index first: from then on no reader takes the rest for a data set
        self.remove(INDEX_NAME)
        for name in self.file_names():
            if SET_FILE_NAME.fullmatch(name):
                self.remove(name)
        for name in self.file_names(MANIFEST_FOLDER):
            self.remove(f"{MANIFEST_FOLDER}/{name}")
        for name in (PLAN_NAME, SETTINGS_NAME):
            self.remove(name)

    def remove_other_shards(self, names: Collection[str]) -> None:
        """Remove shards and manifests of an earlier plan, those not in `names`, and all temporary files."""
        for name in self.file_names():
            # also a shard without a manifest: its worker was killed between the two
            if SHARD_NAME.fullmatch(name) and name not in names:
                # the index first: it may still list this shard
                self.remove(INDEX_NAME)
                self.remove(name)
        for name in self.file_names(MANIFEST_FOLDER):
            if name.removesuffix(".json") not in names:
                self.remove(f"{MANIFEST_FOLDER}/{name}")
        for folder in ("", STATE_FOLDER, MANIFEST_FOLDER):
            for name in self.file_names(folder):
                if _TEMPORARY_FILE.fullmatch(name):
                    self.remove(f"{folder}/{name}".lstrip("/"))

    def log_run(self, record: dict[str, Any]) -> None:
        """Add a record to the log of runs. Unlike all other files it holds times and host names."""
        with (self.out / LOG_NAME).open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(canonical_json(record) + "\n")


def part_lock_name(part: Part) -> str:
    """The name of the lock file of a part, which `PART_LOCK` matches."""
    return f"part-{part.number}-of-{part.count}.lock"


@contextmanager
def remove_stale_temp_files(folders: Collection[Path], names: Collection[str]) -> Iterator[None]:
    """Remove temporary files of the shards `names` from the folders, both before and after the block.

    A worker that is killed leaves one. A run that is stopped many times would fill the disk with them.
    """
    _remove_temp_files(folders, names)
    try:
        yield
    finally:
        _remove_temp_files(folders, names)


def _remove_temp_files(folders: Collection[Path], names: Collection[str]) -> None:
    for folder in folders:
        for path in folder.glob(".*.tmp"):
            match = _TEMPORARY_SHARD.fullmatch(path.name)
            if match and match[1] in names:
                path.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class PrepareSummary:
    """What a prepare run left behind. Always: `listed` = `written` + `skipped` videos.

    `num_clips`, `num_shards` and `num_bytes` count all shards, also those that were finished before. This run made
    `num_built` of them in `seconds`; `speed` counts only those. `event_density` is the share of stored events that are
    not zero. `num_partial` of the written videos are damaged and were kept up to the damage. With `part` all counts are
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
    skipped_videos: tuple[SkippedVideo, ...]
    num_partial: int = 0
    speed: PrepareSpeed = field(default_factory=PrepareSpeed)
    part: Part | None = None
    warnings: tuple[str, ...] = ()

    @property
    def skipped_path(self) -> str:
        """The file that names the skipped videos."""
        return f"{self.out}/{SKIPPED_NAME}"


def summarise(out: Path | str, manifests: Sequence[ShardManifest], part: Part | None = None) -> PrepareSummary:
    """Count what the shards of `manifests` hold, with nothing built and no time spent."""
    rows, skipped, shards = _gather(manifests)
    return PrepareSummary(
        out=out,
        listed=len(rows) + len(skipped),
        written=len(rows),
        skipped=len(skipped),
        num_clips=sum(shard["num_samples"] for shard in shards),
        num_shards=len(shards),
        num_built=0,
        num_bytes=sum(shard["num_bytes"] for shard in shards),
        event_density=_event_density(manifests),
        seconds=0.0,
        skipped_videos=tuple(SkippedVideo(**row) for row in skipped),
        num_partial=sum("partial" in row for row in rows),
        part=part,
    )


def write_index(
    out: Path, head: Mapping[str, Any], settings: Mapping[str, Any], manifests: Sequence[ShardManifest]
) -> None:
    """Write the index, the lists of videos and the card, for the shards of `manifests` in this order.

    `head` holds `format_version, dataset, split, classes, evaluation_subset, listed`. Files that are right already are
    not touched.
    """
    rows, skipped, shards = _gather(manifests)
    assert head["listed"] == len(rows) + len(skipped)
    videos_text, skipped_text = jsonl(rows), jsonl(skipped)
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
            "rows_sha256": sha256_of_bytes(videos_text.encode("utf-8", "surrogateescape")),
            "skipped_sha256": sha256_of_bytes(skipped_text.encode("utf-8", "surrogateescape")),
        },
        "num_clips": sum(shard["num_samples"] for shard in shards),
        "event_density": _event_density(manifests),
        "shards": shards,
    }
    sealed = seal(content, indent=1)
    index_path = out / INDEX_NAME
    if index_path.exists() and index_path.read_bytes() != sealed.encode("utf-8", "surrogateescape"):
        # an old index beside new rows would look damaged
        index_path.unlink()
    write_if_changed(out / VIDEOS_NAME, videos_text)
    write_if_changed(out / SKIPPED_NAME, skipped_text)
    write_if_changed(out / CARD_NAME, dataset_card(content))
    # the index last: once it is there, everything that it names is there
    write_if_changed(index_path, sealed)


def _gather(
    manifests: Sequence[ShardManifest],
) -> tuple[list[dict[str, Any]], list[dict[str, str]], list[dict[str, Any]]]:
    """The rows of written videos, of skipped videos and of shards."""
    rows = [row for manifest in manifests for row in manifest["videos"]]
    skipped = sorted((row for manifest in manifests for row in manifest["skipped"]), key=lambda row: row["video"])
    return rows, skipped, [manifest["shard"] for manifest in manifests if manifest["shard"]]


def _event_density(manifests: Sequence[ShardManifest]) -> float:
    num_samples = sum(manifest["num_event_samples"] for manifest in manifests)
    return round(sum(manifest["num_events"] for manifest in manifests) / num_samples, 6) if num_samples else 0.0


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
    """Return the dataset card, in the form of the model hubs, for `index`, the content of dataset.json."""
    subsets = sorted({shard["subset"] for shard in index["shards"]})
    rows, files = [], []
    for subset in subsets:
        shards = [shard for shard in index["shards"] if shard["subset"] == subset]
        clips, size = (sum(shard[name] for shard in shards) for name in ("num_samples", "num_bytes"))
        rows.append(f"| {subset} | {len(shards):,} | {clips:,} | {size:,} |")
        # the hubs call this split by its long name
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
