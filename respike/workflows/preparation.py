"""Preparation: the videos of a data set, listed, downloaded if asked, and turned into shards."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from respike.common.errors import SettingError
from respike.common.processes import usable_cpus
from respike.common.progress import SILENCE, Progress
from respike.common.text import pick
from respike.data.acquire import AcquireSettings, acquire_dataset, read_sources
from respike.data.datasets import DATASETS, Dataset, ListingRequest
from respike.data.executors import local, ray
from respike.data.executors.base import Executor
from respike.data.output import PrepareSummary
from respike.data.plan import Part
from respike.data.preparation import Existing
from respike.data.preparation import prepare as prepare_listing
from respike.data.prepare_config import DEFAULT_VIDEO_TIMEOUT_SECONDS, PrepareConfig
from respike.data.video_check import CheckReport
from respike.data.video_check import check as check_listing
from respike.types import VideoListing

# settings that only one kind of sampling uses
_SAMPLING_OF = {"clip_step": "dense", "clips_per_video": "uniform", "eval_clips": "uniform"}


class UnusedSettingError(SettingError):
    """A setting that has no effect beside the others, or that must not be combined with them."""


def prepare(
    dataset: str,
    root: str | Path | None = None,
    *,
    out: str | Path | None = None,
    split: int | None = None,
    list_path: str | Path | None = None,
    follow_symlinks: bool = True,
    config: PrepareConfig | Mapping[str, object] | None = None,
    download: bool = False,
    sources: Path | None = None,
    drop_archives: bool = False,
    offline: bool = False,
    existing: Existing = "resume",
    part: Part | None = None,
    strict: bool = False,
    video_timeout_seconds: float = DEFAULT_VIDEO_TIMEOUT_SECONDS,
    workers: int | None = None,
    executor: Literal["local", "ray"] | Executor = "local",
    ray_address: str | None = None,
    progress: Progress = SILENCE,
) -> PrepareSummary:
    """Turn raw videos into shards of key frames and residual events. `respike prepare` calls this.

    - `dataset`: `ucf101`, `hmdb51`, `kinetics400`, `kinetics600`, `kinetics700`, `folder` or `demo`.
    - `root`: the folder of the videos, by default `data/DATASET`.
    - `out`: a folder or an address that fsspec writes to, by default `shards/DATASET[-splitN]`.
    - `split`: the official split, by default 1 if the data set has splits.
    - `list_path`: for `folder` only: a CSV or JSONL of path, label and subset.
    - `follow_symlinks`: whether links out of the root are followed.
    - `config`: a PrepareConfig, or some of its settings by name, such as `{"stride": 2}`. The sampling, if it is not
      given, is the one that the data set is usually sampled with.
    - `download`: download and unpack what is missing under the root. `sources`: a TOML file of addresses to use instead
      of the published ones. `drop_archives`: remove each archive once it is unpacked. `offline`: use only archives that
      are there already.
    - `existing`: what happens to shards in `out`: `resume` keeps finished ones, `retry-skipped` keeps them and tries
      again what was skipped, `overwrite` deletes them.
    - `part`: make only this part of the shards; `respike.data.preparation.join_parts` joins the parts.
    - `strict`: raise an error in the end if a video had to be skipped.
    - `video_timeout_seconds`: skip a video that gives no frame for so long.
    - `workers`: processes, by default one for each core. `executor`: where they run: `local`, `ray` or a function.
      `ray_address`: the head of the Ray cluster, such as `head:6379`.

    Broken videos are skipped and recorded. An interrupted run continues when it is called again. The bytes of the
    shards depend on the videos and the settings alone.

    Raises UnusedSettingError for a setting that has no effect, SettingError for a value that is not allowed,
    DatasetError if the videos or their lists are not found, MismatchError if `out` was made with other settings,
    and RespikeError if no video could be read, if another run writes to `out`, or if the disk refuses.
    """
    kind = pick(DATASETS, dataset, "data set")
    if existing == "overwrite" and part is not None:
        raise UnusedSettingError(
            "overwrite would delete what the other parts made",
            "use it without a part first",
            setting="overwrite",
        )
    for name, value in (("sources", sources), ("drop_archives", drop_archives), ("offline", offline)):
        if value and not download:
            raise UnusedSettingError(f"{name} needs download", f"set download, or leave {name} out", setting=name)
    if ray_address is not None and executor != "ray":
        raise UnusedSettingError(
            "ray_address needs the executor ray", "use executor ray, or leave ray_address out", setting="ray_address"
        )
    settings = config if isinstance(config, PrepareConfig) else _choose_config(kind, config or {})
    request = _make_listing_request(
        kind, root, split=split, list_path=list_path, follow_symlinks=follow_symlinks, seed=settings.seed
    )
    if download:
        acquire_dataset(
            request.root,
            read_sources(dataset, sources),
            lambda: kind.list_videos(request),
            AcquireSettings(drop_archives=drop_archives, offline=offline),
            progress=progress,
        )
    if out is None:
        out = Path("shards") / (dataset if request.split is None else f"{dataset}-split{request.split}")
    listing = kind.list_videos(request)
    summary = prepare_listing(
        listing,
        out,
        settings,
        num_workers=workers,
        strict=strict,
        existing=existing,
        part=part,
        video_timeout_seconds=video_timeout_seconds,
        executor=_find_executor(executor, ray_address),
        progress=progress,
    )
    return dataclasses.replace(summary, warnings=tuple(listing.warnings))


def check_videos(
    dataset: str,
    root: str | Path | None = None,
    *,
    split: int | None = None,
    list_path: str | Path | None = None,
    follow_symlinks: bool = True,
    full: bool = False,
    workers: int | None = None,
    progress: Progress = SILENCE,
) -> tuple[VideoListing, CheckReport]:
    """List the videos of a data set and find those that are missing or broken. `respike check` calls this.

    `full` decodes every video; otherwise only its header is read. The other arguments are those of `prepare`. Nothing
    is written. Raises DatasetError if the videos or their lists are not found.
    """
    kind = pick(DATASETS, dataset, "data set")
    request = _make_listing_request(kind, root, split=split, list_path=list_path, follow_symlinks=follow_symlinks)
    listing = kind.list_videos(request)
    for warning in listing.warnings:
        progress.warn(warning)
    return listing, check_listing(listing, full=full, num_workers=workers or usable_cpus(), progress=progress)


def _choose_config(dataset: Dataset, given: Mapping[str, object]) -> PrepareConfig:
    """Return the settings, with the data set's own sampling unless it is given. Raises as `prepare` does."""
    chosen = given.get("sampling", dataset.default_sampling)
    for name, sampling in _SAMPLING_OF.items():
        if name in given and sampling != chosen:
            raise UnusedSettingError(
                f"{name} is for the sampling {sampling}; this is {chosen}",
                f"leave {name} out, or use the sampling {sampling}",
                setting=name,
            )
    return PrepareConfig(sampling=dataset.default_sampling).override(given)


def _make_listing_request(
    dataset: Dataset,
    root: str | Path | None,
    *,
    split: int | None,
    list_path: str | Path | None,
    follow_symlinks: bool,
    seed: int = 0,
) -> ListingRequest:
    if list_path is not None and dataset.name != "folder":
        raise UnusedSettingError(
            f"list_path is for the data set folder; {dataset.name} has its own lists",
            "leave list_path out",
            setting="list_path",
        )
    if split is not None and split not in dataset.splits:
        has = f"has the splits {', '.join(map(str, dataset.splits))}" if dataset.splits else "has no splits"
        raise UnusedSettingError(f"split is {split}; {dataset.name} {has}", "choose another split", setting="split")
    return ListingRequest(
        root=Path("data") / dataset.name if root is None else Path(root),
        split=next(iter(dataset.splits), None) if split is None else split,
        seed=seed,
        list_path=None if list_path is None else Path(list_path),
        follow_symlinks=follow_symlinks,
    )


def _find_executor(executor: Literal["local", "ray"] | Executor, ray_address: str | None) -> Executor:
    if executor == "local":
        return local.run
    if executor == "ray":
        return partial(ray.run, address=ray_address)
    if isinstance(executor, str):
        raise SettingError(f"executor is {executor!r}", "choose local or ray", setting="executor")
    return executor
