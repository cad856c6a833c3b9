"""Ablation workflow: a grid of settings over raw videos; shards, a training and scores for each of its cells."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from respike.common.distributed import num_processes
from respike.common.errors import MismatchError, RespikeError, SettingError
from respike.common.files import canonical_json, folder_lock, write_atomically
from respike.common.processes import usable_cpus
from respike.common.progress import SILENCE, Progress
from respike.common.signals import ExitCodeError
from respike.common.text import did_you_mean, format_joules, format_share
from respike.data import make_loader, open_shards
from respike.data.datasets import DATASETS, Dataset, ListingRequest
from respike.data.index import read_index
from respike.data.preparation import prepare
from respike.data.prepare_config import PrepareConfig
from respike.data.synthetic import PLAIN, choose_settings, write_demo
from respike.types import VideoListing
from respike.workflows.ablation_grid import Cell, Grid, GridPoint, Summary, summarize_cells
from respike.workflows.demo import require_own_videos
from respike.workflows.evaluation import evaluate
from respike.workflows.inputs import choose_spread_clips
from respike.workflows.plots import METRIC_TITLES, draw_ablation, save_figure
from respike.workflows.training import train
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.device import resolve_device
from respike.zoo.energy import estimate_energy
from respike.zoo.models import variant_config
from respike.zoo.nn.config import ModelConfig
from respike.zoo.recipe import Recipe, read_recipe
from respike.zoo.train_config import TrainConfig

RESULTS_NAME = "results.jsonl"
TABLE_NAME = "table.md"
# recipe of the demo by its scenes
DEMO_RECIPES = {PLAIN: "demo16", "hard": "demo16hard"}
# the headings of `table_rows`
COLUMNS = (
    "stride",
    "θ",
    "branches",
    "fusion",
    "seeds",
    "top-1 of videos",
    "top-1 of clips",
    "mean class",
    "energy a clip",
    "sparse stem",
    "events not zero",
    "parameters",
)
_FACTS_NAME = "ablation.json"
# enough for steady firing rates, few enough for the plain attention that counting needs
_NUM_ENERGY_CLIPS = 8


@dataclass(frozen=True, kw_only=True)
class AblationConfig:
    """What an ablation trains, on which videos.

    - `source`: `demo`, the name of a data set, or a folder of class folders of videos.
    - `root`: where the videos are; None is `data/SOURCE` for a data set. With `demo` None makes the videos in `out`.
    - `split`: an official split; None is the first.
    - `out`: the folder for everything; None is `ablations/SOURCE`.
    - `grid`: what varies from cell to cell.
    - `recipe`: the name or TOML file of how each cell is trained; None is the demo's own for `demo`, else the defaults.
    - `overrides`: settings of the recipe with other values, by name.
    - `init`: a checkpoint that every cell starts from.
    - `clip_length`: frames a clip.
    - `num_videos`, `scenes`: training videos a class, and the kind of scenes, of the videos that `demo` makes.
    - `metric`: the score that the charts show, one of `plots.METRIC_TITLES`.
    - `num_workers`: processes that make and prepare videos; None uses one for each core.

    Raises SettingError that names a setting which is not allowed.
    """

    source: str
    root: Path | None = None
    split: int | None = None
    out: Path | None = None
    grid: Grid = field(default_factory=Grid)
    recipe: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    init: str | None = None
    clip_length: int = 16
    num_videos: int | None = None
    scenes: str = PLAIN
    metric: str = "video_top1"
    num_workers: int | None = None

    def __post_init__(self) -> None:
        for name, choices in (("scenes", DEMO_RECIPES), ("metric", METRIC_TITLES)):
            if (value := getattr(self, name)) not in choices:
                raise SettingError(f"{name} is {value!r}", f"choose from {', '.join(choices)}", setting=name)
        for name, is_given in (("num_videos", self.num_videos is not None), ("scenes", self.scenes != PLAIN)):
            if is_given and not self.makes_videos:
                raise SettingError(f"{name} is only for videos that the demo makes", f"leave out {name}", setting=name)
        for name in ("seed", "branches"):
            if name in self.overrides:
                axis = "num_seeds" if name == "seed" else name
                raise SettingError(f"{name} is an axis of the grid", f"give {axis} instead", setting=axis)

    @property
    def makes_videos(self) -> bool:
        """Whether the videos are made here, by the demo."""
        return self.source == "demo" and self.root is None

    @property
    def dataset(self) -> Dataset:
        """How the videos are listed."""
        return DATASETS[self.source if self.source in DATASETS else "folder"]

    @property
    def folder(self) -> Path:
        """The folder for everything."""
        name = Path(self.source).resolve().name if self.scenes == PLAIN else f"{self.source}-{self.scenes}"
        return self.out or Path("ablations") / name

    @property
    def videos_root(self) -> Path:
        """The folder of the videos."""
        if self.root is not None:
            return self.root
        if self.makes_videos:
            return self.folder / "videos"
        return Path("data") / self.source if self.source in DATASETS else Path(self.source)

    @property
    def recipe_name(self) -> str | None:
        """The recipe that is read, None for the defaults."""
        return self.recipe or (DEMO_RECIPES[self.scenes] if self.source == "demo" else None)

    def read_recipe(self) -> Recipe:
        """Return how each cell is trained. Raises RespikeError if there is no such recipe, network or setting."""
        recipe = Recipe() if self.recipe_name is None else read_recipe(self.recipe_name)
        return recipe.override(self.overrides).resolve()


@dataclass(frozen=True, kw_only=True)
class AblationResult:
    """The result of every cell, and a summary for every grid point; `num_kept` cells were done by an earlier run."""

    folder: Path
    results: list[tuple[Cell, Mapping[str, Any]]]
    summaries: list[Summary]
    num_kept: int

    def to_json(self) -> dict[str, Any]:
        """Return the results as plain JSON values."""
        return {
            "out": str(self.folder),
            "num_kept": self.num_kept,
            "cells": [result for _, result in self.results],
        }


def run_ablation(config: AblationConfig, progress: Progress = SILENCE) -> AblationResult:
    """Prepare shards for each stride and threshold; train and score each cell and count its energy.

    The results are written after each cell: `results.jsonl`, `table.md` and three charts. Cells that an earlier run
    finished are kept, and a training that was stopped goes on. Raises SettingError before anything is made if a cell
    cannot be trained, and MismatchError if the folder holds an ablation of another recipe or of other videos.
    """
    if num_processes() > 1:
        raise RespikeError("an ablation runs in one process", "start it without torchrun or accelerate")
    recipe = config.read_recipe()
    cells = config.grid.cells()
    _check_networks(config.grid, recipe)
    facts = _facts(config, recipe, progress)
    folder = AblationFolder(config.folder)
    # cells that differ only in network or seed share their shards
    prepare_configs = {folder.shards(point): _prepare_config(config, point) for point in config.grid.points()}
    config.folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(config.folder / ".respike" / "ablate.lock", "respike ablate"):
        folder.require_same(facts)
        listing = _list_videos(config, progress)
        for shards, prepare_config in prepare_configs.items():
            shards.parent.mkdir(exist_ok=True)
            prepare(listing, shards, prepare_config, num_workers=config.num_workers, progress=progress)
        results = [(cell, result) for cell in cells if (result := folder.read_result(cell)) is not None]
        num_kept = len(results)
        with progress.task("ablate", total=len(cells), unit="cells") as task:
            task.advance(num_kept, kept=num_kept)
            for cell in cells:
                if cell not in dict(results):
                    results.append((cell, _run_cell(config, recipe, folder, cell, progress)))
                    folder.write_report(results, config.metric)
                    task.advance(1)
        results.sort(key=lambda pair: cells.index(pair[0]))
        summaries = folder.write_report(results, config.metric)
        return AblationResult(folder=config.folder, results=results, summaries=summaries, num_kept=num_kept)


def _check_networks(grid: Grid, recipe: Recipe) -> None:
    """Raise SettingError if a network of the grid cannot be built or is in it twice."""
    found: dict[tuple[int, int, ModelConfig], GridPoint] = {}
    for point in grid.points():
        network = variant_config(recipe.network, 2, point.branches, recipe.given_options, point.fusion)
        known = found.setdefault((point.stride, point.threshold, network), point)
        if known != point:
            raise SettingError(
                f"the fusions {known.fusion_name} and {point.fusion_name} are the same in {recipe.network}",
                "leave one of them out",
                setting="fusions",
            )


def _facts(config: AblationConfig, recipe: Recipe, progress: Progress) -> dict[str, Any]:
    """Return what all cells of a folder have in common.

    Raises CheckpointError if `init` cannot be loaded, SettingError if the data set has no such split.
    """
    dataset = config.dataset
    request = ListingRequest(root=config.videos_root, split=config.split)
    facts = {
        "source": config.source,
        "root": None if config.makes_videos else str(config.videos_root),
        "split": request.official_split(dataset.name, dataset.splits),
        "clip_length": config.clip_length,
        "videos": config.num_videos,
        "scenes": None if config.scenes == PLAIN else config.scenes,
        # a checksum, because the file at the same path may change
        "init": None if config.init is None else load_checkpoint(config.init, progress=progress)[1].weights_sha256,
        "network": recipe.network,
        "init_backbone": recipe.init_backbone,
        "options": recipe.changed_options,
    }
    # the seeds are in the grid
    training = {name: value for name, value in recipe.training.to_json().items() if name != "seed"}
    return _with_absolute_paths(facts | training)


def _with_absolute_paths(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts in which a source or root that is a relative path is absolute."""
    changed = dict(facts)
    if (source := facts.get("source")) is not None and source not in DATASETS:
        changed["source"] = str(Path(source).resolve())
    if (root := facts.get("root")) is not None:
        changed["root"] = str(Path(root).resolve())
    return changed


def _prepare_config(config: AblationConfig, point: GridPoint) -> PrepareConfig:
    return PrepareConfig(
        stride=point.stride,
        threshold=point.threshold,
        clip_length=config.clip_length,
        sampling=config.dataset.default_sampling,
        videos_per_shard=8 if config.source == "demo" else PrepareConfig.videos_per_shard,
    )


def _list_videos(config: AblationConfig, progress: Progress) -> VideoListing:
    root, dataset = config.videos_root, config.dataset
    if dataset.name == "folder" and not root.is_dir():
        # also reached by a mistyped name of a data set
        names = list(DATASETS)
        raise RespikeError(
            f"{config.source} is no data set, and there is no folder {root}",
            f"{did_you_mean(config.source, names)}give a folder of <class>/<video>, or choose from {', '.join(names)}",
        )
    if config.makes_videos:
        require_own_videos(root)
        settings = choose_settings(config.scenes, config.clip_length, config.num_videos)
        write_demo(root, settings, num_workers=config.num_workers or usable_cpus(), progress=progress)
    return dataset.list_videos(ListingRequest(root=root, split=config.split))


def _run_cell(
    config: AblationConfig, recipe: Recipe, folder: "AblationFolder", cell: Cell, progress: Progress
) -> Mapping[str, Any]:
    """Train a cell, or go on with its training; score it, count its energy, and store the result."""
    point = cell.point
    run, shards = folder.run(cell), folder.shards(point)
    progress.say(f"cell {cell.name}")
    settings: dict[str, object] = {"branches": point.branches, "seed": cell.seed}
    if "batch_size" in config.overrides:
        settings["batch_size"] = recipe.training.batch_size
    try:
        outcome = train(
            shards,
            recipe=recipe,
            config=settings,
            out=run,
            init=config.init,
            resume=run.exists(),
            fusion=point.fusion,
            progress=progress,
        )
    except ExitCodeError as error:
        hint = "run the same command to go on: finished cells are kept"
        raise ExitCodeError(error.problem, hint, error.code) from error
    result = {
        "cell": cell.name,
        **point.to_json(),
        "seed": cell.seed,
        "run": str(run),
        "best_epoch": outcome.best_epoch,
        "num_epochs": len(outcome.history),
        **evaluate_cell(run, shards, recipe.training.device, progress),
    }
    folder.write_result(cell, result)
    return result


def evaluate_cell(run: Path, shards: Path, device: str, progress: Progress = SILENCE) -> dict[str, Any]:
    """Return scores and energy of a trained run on the evaluation subset of its shards."""
    scored = evaluate(run, shards, device=device, progress=progress)
    torch_device = resolve_device(device)
    model, spec = load_checkpoint(run, torch_device)
    dataset = open_shards(shards, open_shards(shards).spec.evaluation_subset)
    clips = choose_spread_clips(dataset, _NUM_ENERGY_CLIPS)
    # with the crop that is scored
    loader = make_loader(
        clips, batch_size=len(clips), training=False, image_size=spec.image_size, eval_crop=spec.eval_crop
    )
    energy = estimate_energy(model, next(iter(loader)).to(torch_device))
    return {
        "scores": scored.scores.to_json(),
        "energy_joules": energy.joules,
        "sparse_energy_joules": energy.sparse_stem_joules,
        "event_density": dataset.index.event_density,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


class AblationFolder:
    """The files of one ablation. Cells may be added, but all have the same recipe and the same videos."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def require_same(self, facts: Mapping[str, Any]) -> None:
        """Store what all cells have in common.

        Raises MismatchError that names the differences if earlier cells have other facts.
        """
        path = self._path / _FACTS_NAME
        if not path.exists():
            write_atomically(path, canonical_json(facts, indent=2))
            return
        # an ablation that was made before a setting existed has that setting's default
        stored = TrainConfig().to_json() | self._update_facts(_read_json(path, "choose another folder"))
        if differing := [name for name, value in facts.items() if stored.get(name) != value]:
            raise MismatchError(
                f"{self._path} holds an ablation with other settings: it differs in {', '.join(differing)}",
                "choose another folder, or give the same settings again",
            )

    def shards(self, point: GridPoint) -> Path:
        """Return the folder of a point's shards, which are the same for all networks and seeds."""
        return self._path / "shards" / f"stride{point.stride}-theta{point.threshold}"

    def run(self, cell: Cell) -> Path:
        """Return the run folder of a cell."""
        return self._path / "runs" / cell.name

    def write_result(self, cell: Cell, result: Mapping[str, Any]) -> None:
        """Store the result of a cell, which is finished from now on."""
        path = self._result_path(cell)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, canonical_json(result, indent=2))

    def read_result(self, cell: Cell) -> Mapping[str, Any] | None:
        """Return the result of a finished cell, None if it is not finished.

        Raises MismatchError if the cell was trained on other shards, RespikeError if the file is damaged.
        """
        path = self._result_path(cell)
        if not path.exists():
            return None
        hint = "remove the file: the cell is then scored again"
        result = _read_json(path, hint)
        try:
            fingerprint = result["scores"]["fingerprint"]
        except (KeyError, TypeError) as error:
            raise RespikeError(f"{path} holds no result", hint) from error
        if fingerprint != read_index(self.shards(cell.point)).spec.fingerprint:
            raise MismatchError(
                f"the videos have changed since {cell.name} was trained",
                "choose another folder, so that all cells are trained on the same videos",
            )
        return result

    def write_report(self, results: Sequence[tuple[Cell, Mapping[str, Any]]], metric: str) -> list[Summary]:
        """Write one line for each result, the table, and charts of `metric`; return a summary for each grid point."""
        write_atomically(self._path / RESULTS_NAME, "".join(canonical_json(result) + "\n" for _, result in results))
        summaries = summarize_cells(results)
        write_atomically(self._path / TABLE_NAME, _render_markdown(summaries))
        for name, figure in draw_ablation(summaries, metric).items():
            save_figure(figure, self._path / name)
        return summaries

    def _update_facts(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """Return facts in today's form.

        Earlier versions stored a split of None, source and root as they were typed, and a root for the demo's videos.
        """
        facts = _with_absolute_paths(stored)
        source = str(facts.get("source"))
        if facts.get("split") is None and source in DATASETS and (splits := DATASETS[source].splits):
            facts["split"] = splits[0]
        if source == "demo" and facts.get("root") == str((self._path / "videos").resolve()):
            facts["root"] = None
        return facts

    def _result_path(self, cell: Cell) -> Path:
        return self._path / "cells" / f"{cell.name}.json"


def _read_json(path: Path, hint: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RespikeError(f"cannot read {path}: {error}", hint) from error
    if not isinstance(value, dict):
        raise RespikeError(f"{path} holds a {type(value).__name__}, needed is a JSON object", hint)
    return value


def table_rows(summaries: Sequence[Summary]) -> list[list[str]]:
    """Return the cells of the table under `COLUMNS`, a row for each grid point."""
    return [
        [
            str(summary.point.stride),
            str(summary.point.threshold),
            summary.point.branches,
            summary.point.fusion_name,
            str(summary.num_seeds),
            *(_format_score(summary, name) for name in ("video_top1", "clip_top1", "video_mean_class_accuracy")),
            format_joules(summary.energy_joules),
            format_joules(summary.sparse_energy_joules),
            format_share(summary.event_density),
            f"{summary.num_parameters:,}",
        ]
        for summary in summaries
    ]


def _format_score(summary: Summary, metric: str) -> str:
    deviation = summary.deviations[metric]
    mean = format_share(summary.means[metric])
    return mean if deviation is None else f"{mean} ± {100 * deviation:.1f}"


def _render_markdown(summaries: Sequence[Summary]) -> str:
    words = ("branches", "fusion")
    rules = ["---" if column in words else "---:" for column in COLUMNS]
    return "".join(f"| {' | '.join(row)} |\n" for row in (COLUMNS, rules, *table_rows(summaries)))
