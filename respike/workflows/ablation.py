"""Ablation workflow: a grid over raw videos to shards, runs and results."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from respike.common.distributed import num_processes
from respike.common.errors import MismatchError, RespikeError, SettingError
from respike.common.files import canonical_json, folder_lock, write_atomically
from respike.common.processes import usable_cpus
from respike.common.signals import ProcessError
from respike.common.text import did_you_mean, format_share
from respike.workflows.plots import draw_pictures
from respike.zoo.train_config import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from respike.common.progress import Progress
    from respike.data.datasets import Dataset
    from respike.data.prepare_config import PrepareConfig
    from respike.types import VideoListing
    from respike.workflows.ablation_grid import Cell, Grid, Setting, Summary
    from respike.zoo.nn.config import ModelConfig
    from respike.zoo.recipe import Recipe


_FACTS_NAME = "ablation.json"


class AblationFolder:
    """One ablation on disk; cells may be added to it, but all of one recipe on the same videos."""

    def __init__(self, out: Path) -> None:
        self._out = out

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder, made if need be. Raises RespikeError where another process does."""
        self._out.mkdir(parents=True, exist_ok=True)
        with folder_lock(self._out / ".respike" / "ablate.lock", "respike ablate"):
            yield

    def require_same(self, facts: Mapping[str, Any]) -> None:
        """Note what all cells have in common; raise MismatchError that names in what earlier ones had it otherwise."""
        path = self._out / _FACTS_NAME
        if not path.exists():
            write_atomically(path, canonical_json(facts, indent=2))
            return
        # an ablation from before a setting came to be had its default
        known = TrainConfig().to_json() | _read_json(path, "give another --out")
        if differing := [name for name, value in facts.items() if known.get(name) != value]:
            raise MismatchError(
                f"{self._out} holds an ablation made otherwise: it differs in {', '.join(differing)}",
                "give another --out, or the same again",
            )

    def shards(self, setting: "Setting") -> Path:
        """The shards of a setting, the same for all networks and seeds."""
        return self._out / "shards" / f"stride{setting.stride}-theta{setting.threshold}"

    def run(self, cell: "Cell") -> Path:
        """The run folder of a cell."""
        return self._out / "runs" / cell.name

    def keep(self, cell: "Cell", result: Mapping[str, Any]) -> None:
        """Keep the result of a cell: it is finished from now on."""
        path = self._result(cell)
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, canonical_json(result, indent=2))

    def read_kept(self, cell: "Cell") -> Mapping[str, Any] | None:
        """Return the result of a cell that is finished, None where it is not.

        Raises MismatchError where its shards are others now, RespikeError where the file is damaged.
        """
        from respike.data.index import read_index

        path = self._result(cell)
        if not path.exists():
            return None
        kept = _read_json(path, "remove it: the cell is then scored again")
        try:
            fingerprint = kept["scores"]["fingerprint"]
        except (KeyError, TypeError) as error:
            raise RespikeError(f"{path} holds no result", "remove it: the cell is then scored again") from error
        if fingerprint != read_index(self.shards(cell.setting)).spec.fingerprint:
            raise MismatchError(
                f"the videos have changed since {cell.name} was trained",
                "give another --out, so that all cells see the same",
            )
        return kept

    def _result(self, cell: "Cell") -> Path:
        return self._out / "cells" / f"{cell.name}.json"


def _read_json(path: Path, hint: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RespikeError(f"cannot read {path}: {error}", hint) from error
    if not isinstance(value, dict):
        raise RespikeError(f"{path} holds a {type(value).__name__}, no JSON object", hint)
    return value


RESULTS_NAME = "results.jsonl"
TABLE_NAME = "table.md"
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
_NUM_WORDS = 4


def write_results(out: Path, results: "Sequence[tuple[Cell, Mapping[str, Any]]]", figure: str) -> "list[Summary]":
    """Write what is known so far: a line a cell, the table, pictures of `figure`. Returns a summary a setting."""
    from respike.workflows.ablation_grid import summarise_cells

    write_atomically(out / RESULTS_NAME, "".join(canonical_json(result) + "\n" for _, result in results))
    summaries = summarise_cells(results)
    write_atomically(out / TABLE_NAME, render_markdown(summaries))
    draw_pictures(summaries, out, figure)
    return summaries


def table_rows(summaries: "Sequence[Summary]") -> list[list[str]]:
    """Cells of the table, a row a setting, under `COLUMNS`."""
    return [
        [
            str(summary.setting.stride),
            str(summary.setting.threshold),
            summary.setting.branches,
            summary.setting.fusion_name,
            str(summary.num_seeds),
            *(_share(summary, name) for name in ("video_top1", "clip_top1", "video_mean_class_accuracy")),
            format_energy(summary.energy_joules),
            format_energy(summary.sparse_energy_joules),
            format_share(summary.event_density),
            f"{summary.num_parameters:,}",
        ]
        for summary in summaries
    ]


def render_markdown(summaries: "Sequence[Summary]") -> str:
    """The table as Markdown."""
    rules = ["---:"] * len(COLUMNS)
    rules[2:_NUM_WORDS] = ["---", "---"]
    rows = [COLUMNS, rules, *table_rows(summaries)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def format_energy(joules: float) -> str:
    """An energy for people: 1.23 mJ, 456 µJ."""
    return f"{1e3 * joules:.3g} mJ" if joules >= 1e-3 else f"{1e6 * joules:.3g} µJ"


def _share(summary: "Summary", name: str) -> str:
    deviation = summary.deviations[name]
    share = format_share(summary.figures[name])
    return share if deviation is None else f"{share} ± {100 * deviation:.1f}"


AGAIN = "run the same command to go on: finished cells are kept"
# enough for steady firing rates, few enough for the plain attention that the count needs
_ENERGY_CLIPS = 8


@dataclass(frozen=True, kw_only=True)
class AblateRequest:
    """What was asked for.

    `source` is a data set by name, its videos under `root`, or a folder of videos; `num_videos` is how many the demo
    makes a class to train on (None: its own number), `scenes` of which kind (None: plain). `recipe` is what every cell
    is trained by, `init` a checkpoint that it starts from, `figure` what the pictures show.
    """

    source: str
    root: Path | None
    split: int | None
    out: Path
    grid: "Grid"
    recipe: "Recipe"
    recipe_name: str | None
    is_batch_size_given: bool
    clip_length: int
    num_videos: int | None
    num_workers: int | None
    init: str | None = None
    scenes: str | None = None
    figure: str = "video_top1"


@dataclass(frozen=True, kw_only=True)
class AblateOutcome:
    """What there is to tell: every cell's result and a summary a setting; `num_kept` cells were finished before."""

    results: "list[tuple[Cell, Mapping[str, Any]]]"
    summaries: "list[Summary]"
    num_kept: int


def run_ablation(request: AblateRequest, progress: "Progress") -> AblateOutcome:
    """Prepare each setting once, train, score and weigh each cell, and write the results after each.

    What was finished by an earlier run is kept; a training that was cut goes on. Raises MismatchError where the folder
    holds an ablation of something else, SettingError before anything is made where a cell cannot be.
    """
    if num_processes() > 1:
        raise RespikeError("an ablation runs on one process", "start it without torchrun or accelerate")
    cells = request.grid.cells()
    layout = _layout(request)
    _check_networks(request)
    facts = _facts(request, progress)
    folder = AblationFolder(request.out)
    # cells that differ in network or seed share their shards
    shards = {folder.shards(each): _prepare_settings(request, layout, each) for each in request.grid.settings()}
    with folder.lock():
        folder.require_same(facts)
        listing = _list_videos(request, layout, progress)
        for path, chosen in shards.items():
            _prepare(listing, path, chosen, request, progress)
        results = [(cell, result) for cell in cells if (result := folder.read_kept(cell)) is not None]
        num_kept = len(results)
        with progress.task("ablate", total=len(cells), unit="cells") as task:
            task.advance(num_kept, kept=num_kept)
            for cell in cells:
                if cell not in dict(results):
                    results.append((cell, _run_cell(request, folder, cell, progress)))
                    write_results(request.out, results, request.figure)
                    task.advance(1)
        results.sort(key=lambda pair: cells.index(pair[0]))
        summaries = write_results(request.out, results, request.figure)
        return AblateOutcome(results=results, summaries=summaries, num_kept=num_kept)


def _layout(request: AblateRequest) -> "Dataset":
    from respike.data.datasets import DATASETS

    return DATASETS.get(request.source, DATASETS["folder"])


def _root(request: AblateRequest) -> Path:
    if request.root is not None:
        return request.root
    if request.source == "demo":
        return request.out / "videos"
    return Path("data") / request.source if _layout(request).name == request.source else Path(request.source)


def _prepare_settings(request: AblateRequest, layout: "Dataset", setting: "Setting") -> "PrepareConfig":
    from respike.data.prepare_config import PrepareConfig

    per_shard = 8 if layout.name == "demo" else PrepareConfig.videos_per_shard
    return PrepareConfig(
        stride=setting.stride,
        threshold=setting.threshold,
        clip_length=request.clip_length,
        sampling=layout.default_sampling,
        videos_per_shard=per_shard,
    )


def _check_networks(request: AblateRequest) -> None:
    """Raise where a network of the grid cannot be or is in it twice, before a video is made or read."""
    from respike.zoo.models import variant_config

    recipe = request.recipe
    found: dict[tuple[int, int, ModelConfig], Setting] = {}
    for setting in request.grid.settings():
        config = variant_config(recipe.network, 2, setting.branches, recipe.given_options, setting.fusion)
        known = found.setdefault((setting.stride, setting.threshold, config), setting)
        if known != setting:
            raise SettingError(
                f"the fusions {known.fusion_name} and {setting.fusion_name} are one and the same in {recipe.network}",
                "leave one of them out",
            )


def _facts(request: AblateRequest, progress: "Progress") -> dict[str, Any]:
    """What all cells of a folder have in common. Raises CheckpointError where there is none to start from."""
    from respike.zoo.checkpoint import load_checkpoint

    recipe = request.recipe
    own = {
        "source": request.source,
        "root": str(_root(request)),
        "split": request.split,
        "clip_length": request.clip_length,
        "videos": request.num_videos,
        "scenes": request.scenes,
        # by its bytes: another checkpoint may come to stand at the same path
        "init": None if request.init is None else load_checkpoint(request.init, progress=progress)[1].weights_sha256,
        "network": recipe.network,
        "init_backbone": recipe.init_backbone,
        "options": recipe.changed_options,
    }
    # the grid has the seeds
    return own | {name: value for name, value in recipe.training.to_json().items() if name != "seed"}


def _list_videos(request: AblateRequest, layout: "Dataset", progress: "Progress") -> "VideoListing":
    from respike.data.datasets import DATASETS, ListingRequest

    root = _root(request)
    if layout.name == "folder" and not root.is_dir():
        # a data set's name that is mistyped lands here, too
        asked = did_you_mean(request.source, DATASETS)
        raise RespikeError(
            f"{request.source} is no data set, and there is no folder {root}",
            f"{asked}give a folder of <class>/<video>, or choose from {', '.join(DATASETS)}",
        )
    if layout.name == "demo" and request.root is None:
        from respike.data.synthetic import PLAIN, choose_settings, write_demo
        from respike.workflows.demo_folder import require_own_videos

        require_own_videos(root)
        made = choose_settings(request.scenes or PLAIN, request.clip_length, request.num_videos)
        write_demo(root, made, num_workers=request.num_workers or usable_cpus(), progress=progress)
    return layout.list_videos(ListingRequest(root=root, split=request.split))


def _prepare(
    listing: "VideoListing", out: Path, settings: "PrepareConfig", request: AblateRequest, progress: "Progress"
) -> None:
    from respike.data.preparation import prepare

    out.parent.mkdir(exist_ok=True)
    prepare(listing, out, settings, num_workers=request.num_workers, progress=progress)


def _run_cell(request: AblateRequest, folder: AblationFolder, cell: "Cell", progress: "Progress") -> Mapping[str, Any]:
    """Train a cell, or go on with it, score it and count its energy; keep the result."""
    from respike.workflows.training import TrainRequest, run_training

    setting = cell.setting
    run, shards = folder.run(cell), folder.shards(setting)
    progress.say(f"cell {cell.name}")
    train = TrainRequest(
        data=str(shards),
        recipe=request.recipe.override({"branches": setting.branches, "seed": cell.seed}),
        recipe_name=request.recipe_name,
        is_batch_size_given=request.is_batch_size_given,
        num_workers=None,
        out=run,
        init=request.init,
        # what was never begun is not gone on with
        is_resumed=run.exists(),
        fusion=setting.fusion,
    )
    try:
        outcome = run_training(train, progress)
    except ProcessError as error:
        raise ProcessError(error.problem, AGAIN, error.code) from error
    assert outcome is not None  # only the other of several processes has none
    result = {"cell": cell.name, **setting.to_json(), "seed": cell.seed, "run": str(run)}
    result |= {"best_epoch": outcome.result.best_epoch, "num_epochs": len(outcome.result.history)}
    result |= _weigh(request, run, shards, progress)
    folder.keep(cell, result)
    return result


def _weigh(request: AblateRequest, run: Path, shards: Path, progress: "Progress") -> dict[str, Any]:
    """Scores and energy of a trained cell."""
    from respike.data import make_loader
    from respike.data.loader import Views
    from respike.workflows.evaluation import ScoreRequest, open_candidate, score_candidate
    from respike.workflows.inputs import spread
    from respike.zoo.checkpoint import load_checkpoint
    from respike.zoo.device import resolve_device
    from respike.zoo.energy import estimate_energy

    model, spec = load_checkpoint(run)
    device = resolve_device(request.recipe.training.device)
    asked = ScoreRequest(views=Views())
    candidate = open_candidate(str(run), model, spec, str(shards), asked, device, progress)
    scored = score_candidate(candidate, asked, device, progress)
    few, size = spread(candidate.dataset, _ENERGY_CLIPS), spec.image_size
    # on the pixels that it was scored on
    loader = make_loader(few, batch_size=len(few), training=False, image_size=size, eval_crop=spec.eval_crop)
    energy = estimate_energy(model, next(iter(loader)).to(device))
    return {
        "scores": scored.scores.to_json(),
        "energy_joules": energy.joules,
        "sparse_energy_joules": energy.sparse_stem_joules,
        "event_density": candidate.dataset.index.event_density,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }
