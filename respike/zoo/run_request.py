"""Run request: how the training in a run folder was started, so that it can be resumed."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from respike.common.errors import MismatchError, RespikeError
from respike.common.files import RUNS_ROOT, canonical_json
from respike.common.text import name_some
from respike.zoo.recipe import Recipe, read_recipe
from respike.zoo.run_folder import (
    BEST_NAME,
    RECIPE_NAME,
    REQUEST_NAME,
    STATE_NAME,
    RunSummary,
    is_running,
    summarise_run,
)


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """How a training was started.

    - `recipe`: all settings, with every change to the recipe called `recipe_name` (None: the defaults).
    - `data`: folder or address of the shards. `init`: the checkpoint that the training started from, None if none.
    """

    recipe: Recipe
    recipe_name: str | None
    data: str
    init: str | None

    def to_files(self) -> dict[str, str]:
        """Return the texts that `read_run_request` reads, by file name."""
        request = {"recipe": self.recipe_name, "data": self.data, "init": self.init}
        return {RECIPE_NAME: self.recipe.to_toml(), REQUEST_NAME: canonical_json(request, indent=2)}


def read_run_request(folder: Path, recipe_name: str | None) -> RunRequest | None:
    """Return how the run in `folder` was started, None if the folder does not say.

    Raises MismatchError if it was started with another recipe than `recipe_name` (None: any), RespikeError if the
    files cannot be read.
    """
    if not (folder / RECIPE_NAME).exists() or not (folder / REQUEST_NAME).exists():
        return None
    try:
        facts = json.loads((folder / REQUEST_NAME).read_text(encoding="utf-8"))
        request = RunRequest(
            recipe=read_recipe(folder / RECIPE_NAME),
            recipe_name=facts["recipe"],
            data=facts["data"],
            init=facts["init"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RespikeError(f"cannot read {folder / REQUEST_NAME}: {error}", "train in another folder") from error
    if recipe_name not in (None, request.recipe_name):
        started_with = f"the recipe {request.recipe_name}" if request.recipe_name else "no recipe"
        raise MismatchError(
            f"the run {folder} was started with {started_with}, not with {recipe_name}",
            "leave the recipe out, or train in another folder",
        )
    return request


def find_resumable_run() -> Path:
    """Return the only run under `runs/` that can be resumed. Runs in which a process is training do not count.

    Raises RespikeError if there is none or more than one.
    """
    folders = sorted(path.parent for path in RUNS_ROOT.glob(f"*/{STATE_NAME}") if path.is_dir())
    stopped = [folder for folder in folders if not is_running(folder)]
    if len(stopped) == 1:
        return stopped[0]
    if stopped:
        raise RespikeError(
            f"{len(stopped)} runs can be resumed: {', '.join(str(folder) for folder in stopped)}",
            f"choose one: `respike train --resume --out {stopped[0]}`",
        )
    problem = f"no run under {RUNS_ROOT}/ can be resumed"
    if folders:
        problem += f"; still running: {name_some(map(str, folders))}"
    complete = sorted(path.parent for path in RUNS_ROOT.glob(f"*/{BEST_NAME}") if path.parent not in folders)
    if complete:
        problem += f"; complete: {name_some(map(str, complete))}"
    raise RespikeError(problem, "name the folder of a run: `respike train --resume --out FOLDER`")


def summarise_request(folder: Path) -> RunSummary:
    """Summarise the run in `folder`, with the recipe and the checkpoint that it started from among its settings."""
    run = summarise_run(folder)
    request = read_run_request(folder, None)
    if request is None:
        return run
    started = {
        "recipe": request.recipe_name,
        "init": request.init,
        "init_backbone": request.recipe.init_backbone,
    }
    return dataclasses.replace(run, settings=run.settings | started)
