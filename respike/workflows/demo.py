"""Demo workflow: videos, shards, training, scores and energy in one folder, with a page that shows them."""

import dataclasses
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from respike.common.errors import RespikeError
from respike.common.files import write_atomically
from respike.common.processes import usable_cpus
from respike.common.progress import SILENCE, Progress
from respike.common.text import counted
from respike.data import ShardDataset, make_loader, open_shards
from respike.data.datasets import DATASETS, ListingRequest
from respike.data.preparation import PrepareConfig, prepare
from respike.data.synthetic import SCENES, DemoSettings, demo_classes, write_demo
from respike.types import EventClip
from respike.workflows import clip_plots, plots
from respike.workflows.pages import render_page
from respike.workflows.training import make_train_loader
from respike.zoo.energy import EnergyReport, estimate_energy
from respike.zoo.factory import create_model
from respike.zoo.history import EpochRecord
from respike.zoo.nn.config import Branches
from respike.zoo.recipe import Recipe, read_recipe
from respike.zoo.scoring import Scores, score
from respike.zoo.trainer import fit

DEMO_RECIPE = "demo16"
PAGE_NAME = "report.html"
_SINGLE_BRANCHES: tuple[Branches, ...] = ("ann", "snn")
_TITLES: dict[Branches, str] = {"hybrid": "both branches", "ann": "key frames alone", "snn": "events alone"}
_PAGE_FILES = (PAGE_NAME, "curves.png", "confusion.png", "clips.png")
_VIDEO_NAME = re.compile(r"\d+\.mp4")
# a file in each folder that the demo has made; what is in such a folder may be removed
_MARKER = ".respike-demo"
_MARKER_TEXT = "made by `respike demo`, which trains here again each time\n"
_HINT = "move it away, or choose another folder"


@dataclass(frozen=True, kw_only=True)
class DemoNetwork:
    """One network of the demo: its scores on the test videos, its training history, its energy for one clip."""

    branches: Branches
    scores: Scores
    history: tuple[EpochRecord, ...]
    energy: EnergyReport
    num_parameters: int

    @property
    def title(self) -> str:
        """What the network sees, in words."""
        return _TITLES[self.branches]


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """The networks of a demo, the one with both branches first, the page that shows them, and the time it took."""

    networks: tuple[DemoNetwork, ...]
    page: Path
    seconds: float


def run_demo(
    out: Path,
    *,
    ablate: bool = False,
    num_epochs: int | None = None,
    num_videos: int | None = None,
    seed: int = 0,
    num_workers: int | None = None,
    progress: Progress = SILENCE,
) -> DemoResult:
    """Make videos, prepare them, train on the CPU, score the test videos and write `out/report.html`.

    Videos and shards of an earlier demo in `out` are kept, its networks are trained again; nothing else in `out` is
    touched.

    - `ablate`: also train each branch alone, with the same settings.
    - `num_epochs`: passes over the training clips; None takes those of the recipe `demo16`.
    - `num_videos`: training videos a class, and half as many to test; None makes 8.
    - `seed`: of the videos and the training.
    - `num_workers`: processes that make and prepare videos; None uses one for each core.

    Raises RespikeError that names a file in `out` which the demo would remove, replace or train on and has not made.
    """
    started = time.perf_counter()
    all_branches: tuple[Branches, ...] = ("hybrid", *(_SINGLE_BRANCHES if ablate else ()))
    claim_folder(out, all_branches)
    settings = DemoSettings(seed=seed)
    if num_videos is not None:
        settings = dataclasses.replace(settings, train_videos=num_videos, test_videos=max(1, num_videos // 2))
    train, test = _make_shards(out, settings, num_workers or usable_cpus(), progress)
    recipe = read_recipe(DEMO_RECIPE).override({"seed": seed} | ({} if num_epochs is None else {"epochs": num_epochs}))
    networks = tuple(_train_and_score(branches, train, test, recipe, out, progress) for branches in all_branches)
    seconds = time.perf_counter() - started
    return DemoResult(networks=networks, page=_write_page(out, train, test, networks, seconds), seconds=seconds)


def _make_shards(
    out: Path, settings: DemoSettings, num_workers: int, progress: Progress
) -> tuple[ShardDataset, ShardDataset]:
    """Return the clips to train on and those to test on."""
    write_demo(out / "videos", settings, num_workers=num_workers, progress=progress)
    listing = DATASETS["demo"].list_videos(ListingRequest(root=out / "videos"))
    config = PrepareConfig(clip_length=settings.clip_length, videos_per_shard=8, seed=settings.seed)
    prepare(listing, out / "shards", config, num_workers=num_workers, progress=progress)
    return open_shards(out / "shards", "train"), open_shards(out / "shards", "test")


def _train_and_score(
    branches: Branches, train: ShardDataset, test: ShardDataset, recipe: Recipe, out: Path, progress: Progress
) -> DemoNetwork:
    # a demo of few videos may have fewer clips than a batch
    config = dataclasses.replace(recipe.training, batch_size=min(recipe.training.batch_size, len(train)))
    torch.manual_seed(config.seed)
    num_classes = len(train.spec.classes)
    model = create_model(recipe.network, num_classes=num_classes, branches=branches)
    run = run_folder(out, branches)
    clear_run(run)
    loader = make_train_loader(train, config, num_workers=0)
    clips, epochs = counted(len(train), "clip"), counted(config.epochs, "epoch")
    progress.say(f"{_TITLES[branches]}: {clips} to train on, {epochs}")
    result = fit(model, loader, config, out=run, data=train.spec, progress=progress)
    test_loader = make_loader(test, batch_size=32, training=False, image_size=config.resolved_image_size)
    fingerprint = test.spec.fingerprint
    scores = score(
        model, test_loader, num_classes=num_classes, fingerprint=fingerprint, forced=False, progress=progress
    )
    return DemoNetwork(
        branches=branches,
        scores=scores,
        history=tuple(result.history),
        energy=estimate_energy(model, next(iter(test_loader))),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
    )


def _write_page(
    out: Path, train: ShardDataset, test: ShardDataset, networks: Sequence[DemoNetwork], seconds: float
) -> Path:
    best = networks[0]
    figures = {
        "clips": clip_plots.contact_sheet(_choose_clips(test)),
        "curves": plots.draw_curves(best.history),
        "confusion": plots.draw_confusion(best.scores.confusion, train.spec.classes),
    }
    pictures = {}
    for name, figure in figures.items():
        picture = plots.figure_png(figure)
        write_atomically(out / f"{name}.png", picture)
        pictures[name] = plots.inline_png(picture)
    facts: dict[str, Any] = {
        "train": len(train),
        "test": len(test),
        "videos": len({row.video for row in test.clips}),
        "classes": len(train.spec.classes),
        "epochs": len(best.history),
        "seconds": seconds,
        "settings": dict(train.spec.settings),
        "density": train.index.event_density,
    }
    branches = [(name, *figures) for name, figures in best.energy.by_branch().items()]
    page = render_page(
        "demo.html",
        title="respike demo",
        networks=networks,
        branches=branches,
        energy=best.energy,
        pictures=pictures,
        facts=facts,
    )
    write_atomically(out / PAGE_NAME, page)
    return out / PAGE_NAME


def _choose_clips(dataset: ShardDataset) -> list[EventClip]:
    """Return a clip of each thing at rest, each with another motion."""
    classes = dataset.spec.classes
    # the 16 classes are sorted by thing, then by motion
    wanted = [classes[5 * number % len(classes)] for number in range(4)]
    numbers = {classes[row.label]: number for number, row in enumerate(dataset.clips)}
    return [dataset[numbers[name]] for name in wanted if name in numbers]


def run_folder(out: Path, branches: str) -> Path:
    """Return the folder in which the demo trains the network with these branches."""
    return out / "runs" / branches


def claim_folder(out: Path, all_branches: Iterable[str]) -> None:
    """Mark `out` as the folder of a demo that trains networks with these branches.

    Raises RespikeError that names the first file or folder which the demo would remove, replace or train on and has
    not made.
    """
    for branches in all_branches:
        _require_own_run(run_folder(out, branches))
    if not _is_marked(out):
        for path in (out / name for name in _PAGE_FILES):
            if path.exists():
                raise RespikeError(f"{path} was not made by the demo, which would replace it", _HINT)
    require_own_videos(out / "videos")
    _mark(out)


def require_own_videos(root: Path) -> None:
    """Raise RespikeError that names the first file or folder below `root` which the demo did not make, if any.

    Networks would be trained on it.
    """
    for path in _find_foreign(root):
        raise RespikeError(f"{path} was not made by the demo, which would use it as one of its videos", _HINT)


def clear_run(folder: Path) -> None:
    """Remove what an earlier demo trained in `folder`. Raises RespikeError if the demo did not make the folder."""
    _require_own_run(folder)
    if folder.is_dir():
        for path in folder.iterdir():
            # the marker stays, so that a demo killed here still knows the folder as its own
            if path.name == _MARKER:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    _mark(folder)


def _require_own_run(folder: Path) -> None:
    is_empty = folder.is_dir() and not any(folder.iterdir())
    if folder.is_symlink() or (folder.exists() and not _is_marked(folder) and not is_empty):
        raise RespikeError(f"{folder} was not made by the demo, which would train there from the beginning", _HINT)


def _find_foreign(root: Path) -> Iterator[Path]:
    classes = {name for scenes in SCENES for name in demo_classes(scenes)}
    for path in _list_visible(root):
        if path.name not in ("train", "test", "demo.json"):
            yield path
    for subset in (root / "train", root / "test"):
        for folder in _list_visible(subset):
            if folder.name not in classes:
                yield folder
                continue
            yield from (path for path in _list_visible(folder) if not _VIDEO_NAME.fullmatch(path.name))


def _list_visible(folder: Path) -> list[Path]:
    """Return what is in a folder, sorted, without hidden files, which are temporary."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_marked(folder: Path) -> bool:
    return (folder / _MARKER).is_file()


def _mark(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / _MARKER, _MARKER_TEXT)
