"""Ablating: a grid over raw videos → one set of shards a setting, one run a cell, results as they come."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from respike.cli.ablation_folder import AblationFolder
from respike.cli.ablation_report import write_results
from respike.cli.ranks import num_processes
from respike.cli.stopping import ProcessError
from respike.errors import RespikeError, SettingError
from respike.wording import did_you_mean

if TYPE_CHECKING:
    from respike.data.layouts import Layout
    from respike.data.settings import PrepareSettings
    from respike.progress import Progress
    from respike.sample import VideoListing
    from respike.zoo.ablation import Cell, Grid, Setting, Summary
    from respike.zoo.nn.config import ModelConfig
    from respike.zoo.recipe import Recipe

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


def _layout(request: AblateRequest) -> "Layout":
    from respike.data.layouts import LAYOUTS

    return LAYOUTS.get(request.source if request.source in LAYOUTS.names() else "folder")


def _root(request: AblateRequest) -> Path:
    if request.root is not None:
        return request.root
    if request.source == "demo":
        return request.out / "videos"
    return Path("data") / request.source if _layout(request).name == request.source else Path(request.source)


def _prepare_settings(request: AblateRequest, layout: "Layout", setting: "Setting") -> "PrepareSettings":
    from respike.data.settings import PrepareSettings

    per_shard = 8 if layout.name == "demo" else PrepareSettings.videos_per_shard
    return PrepareSettings(
        stride=setting.stride,
        threshold=setting.threshold,
        clip_length=request.clip_length,
        sampling=layout.default_sampling,
        videos_per_shard=per_shard,
    )


def _check_networks(request: AblateRequest) -> None:
    """Raise where a network of the grid cannot be or is in it twice, before a video is made or read."""
    from respike.zoo.ablation import variant_config

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


def _list_videos(request: AblateRequest, layout: "Layout", progress: "Progress") -> "VideoListing":
    from respike.data.layouts import LAYOUTS, ListingRequest

    root = _root(request)
    if layout.name == "folder" and not root.is_dir():
        # a data set's name that is mistyped lands here, too
        asked = did_you_mean(request.source, LAYOUTS.names())
        raise RespikeError(
            f"{request.source} is no data set, and there is no folder {root}",
            f"{asked}give a folder of <class>/<video>, or choose from {', '.join(LAYOUTS.names())}",
        )
    if layout.name == "demo" and request.root is None:
        from respike.cli.demo_folder import require_own_videos
        from respike.data.demo import PLAIN, choose_settings, write_demo

        require_own_videos(root)
        made = choose_settings(request.scenes or PLAIN, request.clip_length, request.num_videos)
        write_demo(root, made, num_workers=request.num_workers or os.cpu_count() or 1, progress=progress)
    return layout.list_videos(ListingRequest(root=root, split=request.split))


def _prepare(
    listing: "VideoListing", out: Path, settings: "PrepareSettings", request: AblateRequest, progress: "Progress"
) -> None:
    from respike.data.prepare import prepare

    out.parent.mkdir(exist_ok=True)
    prepare(listing, out, settings, num_workers=request.num_workers, progress=progress)


def _run_cell(request: AblateRequest, folder: AblationFolder, cell: "Cell", progress: "Progress") -> Mapping[str, Any]:
    """Train a cell, or go on with it, score it and count its energy; keep the result."""
    from respike.cli.starting import TrainRequest
    from respike.cli.training import run_training

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
    from respike.cli.clips import spread
    from respike.cli.scoring import ScoreRequest, open_candidate, score_candidate
    from respike.data import make_loader
    from respike.data.views import Views
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
