"""Run request: how the training in a run folder was started, so that it can resume."""

import json
from dataclasses import dataclass
from pathlib import Path

from respike.common.errors import MismatchError, RespikeError
from respike.common.files import canonical_json
from respike.common.text import agree, name_some
from respike.zoo.recipe import Recipe, read_recipe
from respike.zoo.run_folder import RECIPE_NAME, REQUEST_NAME, RUNS_ROOT

BEST_NAME = "best.safetensors"


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """How a training was started: its recipe with all that was changed, its data, and the network it started from."""

    recipe: Recipe
    recipe_name: str | None
    data: str
    init: str | None

    def to_files(self) -> dict[str, str]:
        """The texts that `read_begun` reads, by file name."""
        request = {"recipe": self.recipe_name, "data": self.data, "init": self.init}
        return {RECIPE_NAME: self.recipe.to_toml(), REQUEST_NAME: canonical_json(request, indent=2)}


def read_run_request(folder: Path, recipe_name: str | None) -> RunRequest | None:
    """Return how the run in `folder` was started, None where none was.

    Raises MismatchError where it was started by another recipe than `recipe_name` (None: not asked), RespikeError
    where the files cannot be read.
    """
    if not (folder / RECIPE_NAME).exists() or not (folder / REQUEST_NAME).exists():
        return None
    try:
        request = json.loads((folder / REQUEST_NAME).read_text(encoding="utf-8"))
        begun = RunRequest(
            recipe=read_recipe(folder / RECIPE_NAME),
            recipe_name=request["recipe"],
            data=request["data"],
            init=request["init"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RespikeError(f"cannot read {folder / REQUEST_NAME}: {error}", "train anew into another folder") from error
    if recipe_name not in (None, begun.recipe_name):
        raise MismatchError(
            f"the run {folder} was begun with the recipe {begun.recipe_name or 'of the defaults'}, not {recipe_name}",
            "leave --recipe out, or train anew into another folder",
        )
    return begun


def find_run_request() -> Path:
    """Return the only run under `runs/` that is under way. Raises RespikeError where there is none, or several."""
    found = sorted(path.parent for path in RUNS_ROOT.glob("*/state") if path.is_dir())
    if len(found) == 1:
        return found[0]
    if not found:
        done = [str(path.parent) for path in sorted(RUNS_ROOT.glob(f"*/{BEST_NAME}"))]
        told = f"{name_some(done)} {agree(len(done), 'is', 'are')} complete; " if done else ""
        raise RespikeError(f"no run under {RUNS_ROOT}/ is to be resumed", f"{told}name the folder of one with --out")
    names = ", ".join(path.name for path in found)
    raise RespikeError(f"{len(found)} runs can be resumed: {names}", f"choose one, as with --out {found[0]}")
