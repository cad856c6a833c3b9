"""`respike ablate`: a grid that is trained, killed, gone on with and added to."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from respike.cli.ablate import _DEMO_RECIPES, _FIGURES, _SPREAD
from respike.cli.options import spread_values
from respike.common.errors import MismatchError, RespikeError
from respike.data.synthetic import SCENES
from respike.workflows import ablation, training
from respike.workflows.ablation import AblationFolder, format_energy
from respike.workflows.plots import FIGURE_TITLES

from tests.cli.conftest import Answer
from tests.processes import call_respike, start_together

Call = Callable[..., Answer]
SMALL = ["--clip-length", "8", "--epochs", "1", "--set", "network=respike_tiny", "--set", "image_size=32"]
SMALL += ["--set", "device=cpu", "--workers", "1"]


def test_an_option_takes_its_values_in_a_row() -> None:
    given = ["demo", "--stride", "2", "4", "8", "--branches", "hybrid", "ann", "--seeds", "3", "--fusion", "0,0,1,1"]
    strides = ["--stride", "2", "--stride", "4", "--stride", "8"]
    rest = ["--branches", "hybrid", "--branches", "ann", "--seeds", "3", "--fusion", "0,0,1,1"]
    assert spread_values(given, _SPREAD) == ["demo", *strides, *rest]
    kinds = ["default", "none", "faithful", "additive:4,2,1,1"]
    assert spread_values(["--fusion", *kinds], _SPREAD) == [word for kind in kinds for word in ("--fusion", kind)]


def test_what_is_no_value_ends_the_row() -> None:
    assert spread_values(["--stride", "2", "videos"], _SPREAD) == ["--stride", "2", "videos"]
    assert spread_values(["--branches", "hybrid", "8"], _SPREAD) == ["--branches", "hybrid", "8"]
    assert spread_values(["--fusion", "none", "addition"], _SPREAD) == ["--fusion", "none", "addition"]
    assert spread_values(["--stride"], _SPREAD) == ["--stride"]


def test_all_scenes_and_figures_that_there_are_can_be_asked_for() -> None:
    assert list(_DEMO_RECIPES) == list(SCENES)
    assert list(_FIGURES) == list(FIGURE_TITLES)


@pytest.fixture(scope="module")
def begun(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ablation of two strides that was ended, as if killed, when its second cell was trained but not scored."""
    from respike.cli.main import main

    out = tmp_path_factory.mktemp("ablation")
    weigh = ablation._weigh
    weighed: list[str] = []

    def die_at_the_second(*arguments: object) -> dict:
        weighed.append("")
        if len(weighed) == 2:
            raise KeyboardInterrupt
        return weigh(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "_weigh", die_at_the_second)
        with pytest.raises(SystemExit) as ended:
            main(["ablate", str(video_folder), "--out", str(out), "--stride", "2", "4", *SMALL, "--quiet"])
    assert ended.value.code == 130
    return out


@pytest.fixture
def out(begun: Path, tmp_path: Path) -> Path:
    shutil.copytree(begun, tmp_path / "out")
    return tmp_path / "out"


def test_results_are_there_after_each_cell(out: Path) -> None:
    (line,) = (out / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["cell"] == "stride2-theta8-hybrid-seed0"


def test_it_goes_on_keeps_what_is_finished_and_tells_what_score_says(call: Call, out: Path, video_folder: Path) -> None:
    cells = ["stride2-theta8-hybrid-seed0", "stride4-theta8-hybrid-seed0"]
    trained = {path: path.stat().st_mtime_ns for path in out.rglob("best.safetensors")}
    assert len(trained) == 2
    answer = call("ablate", video_folder, "--out", out, "--stride", "2", "4", *SMALL, "--json")
    told = json.loads(answer.out)
    assert (told["num_kept"], [cell["cell"] for cell in told["cells"]]) == (1, cells)
    # the second was trained, and only had to be scored
    assert trained == {path: path.stat().st_mtime_ns for path in out.rglob("best.safetensors")}
    kept = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert kept == told["cells"]
    table = (out / "table.md").read_text().splitlines()
    assert len(table) == 4
    for cell, row in zip(kept, table[2:], strict=True):
        shards = out / "shards" / f"stride{cell['stride']}-theta8"
        scored = json.loads(call("score", cell["run"], "--data", shards, "--json").out)
        del scored["per_class"]
        assert cell["scores"] == scored
        shares = [f"{scored[kind]['top1']:.1%}" for kind in ("video", "clip")]
        columns = [column.strip() for column in row.strip("|").split("|")]
        assert columns[:7] == [str(cell["stride"]), "8", "hybrid", "default", "1", *shares]
        assert columns[8] == format_energy(cell["energy_joules"])
    for name in ("accuracy.png", "accuracy_by_energy.png", "accuracy_by_stride.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"


def test_energy_is_that_of_the_trained_network_on_test_clips(out: Path) -> None:
    (line,) = (out / "results.jsonl").read_text().splitlines()
    result = json.loads(line)
    assert 0 < result["sparse_energy_joules"] < result["energy_joules"] < 1
    assert 0 < result["event_density"] < 1


def test_cells_of_another_recipe_do_not_stand_beside_these(call: Call, out: Path, video_folder: Path) -> None:
    before = sorted(out.rglob("*"))
    answer = call("ablate", video_folder, "--out", out, "--stride", "2", *SMALL, "--set", "learning_rate=0.5")
    assert (answer.code, answer.out) == (1, "")
    assert "holds an ablation made otherwise: it differs in learning_rate" in answer.err
    assert sorted(out.rglob("*")) == before


def test_an_ablation_from_before_a_setting_came_to_be_had_its_default(tmp_path: Path) -> None:
    folder = AblationFolder(tmp_path)
    folder.require_same({"network": "respike_tiny", "epochs": 3})
    folder.require_same({"network": "respike_tiny", "epochs": 3, "crop": "resized"})
    with pytest.raises(MismatchError, match="it differs in crop"):
        folder.require_same({"network": "respike_tiny", "epochs": 3, "crop": "multi-scale"})


def test_cells_that_start_from_a_checkpoint_do_not_stand_beside_others(
    call: Call, out: Path, video_folder: Path
) -> None:
    answer = call("ablate", video_folder, "--out", out, "--stride", "2", *SMALL, "--init", "respike_tiny.demo16")
    assert (answer.code, answer.out) == (1, "")
    assert "it differs in init" in answer.err


def test_every_cell_starts_from_the_checkpoint_that_is_named(
    call: Call, video_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def note(request: training.TrainRequest, progress: object) -> None:
        asked.append((request.init, request.recipe.branches))
        raise RespikeError("enough")

    monkeypatch.setattr(training, "run_training", note)
    for branches in ("hybrid", "snn"):
        named = [*SMALL, "--branches", branches, "--init", "respike_tiny.demo16"]
        assert call("ablate", video_folder, "--out", tmp_path / branches, *named).code == 1
    assert asked == [("respike_tiny.demo16", "hybrid"), ("respike_tiny.demo16", "snn")]


def test_videos_that_changed_are_found(call: Call, out: Path, video_folder: Path, tmp_path: Path) -> None:
    facts = json.loads((out / "ablation.json").read_text())
    moved = tmp_path / "videos"
    shutil.copytree(video_folder, moved)
    (out / "ablation.json").write_text(json.dumps(facts | {"source": str(moved), "root": str(moved)}))
    first, second = sorted((moved / "wave").iterdir())[:2]
    shutil.copy(first, second)
    answer = call("ablate", moved, "--out", out, "--stride", "2", *SMALL)
    assert (answer.code, answer.out) == (1, "")
    assert "the videos have changed since stride2-theta8-hybrid-seed0 was trained" in answer.err


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"scores": 1}'])
def test_a_damaged_result_is_named(call: Call, out: Path, video_folder: Path, damage: str) -> None:
    (out / "cells/stride2-theta8-hybrid-seed0.json").write_text(damage)
    answer = call("ablate", video_folder, "--out", out, "--stride", "2", *SMALL, "--json")
    assert (answer.code, answer.out) == (1, "")
    error = json.loads(answer.err)
    assert "stride2-theta8-hybrid-seed0.json" in error["error"]
    assert "remove it" in error["hint"]


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["--stride", "3"], 1, "clip_length 8 is no multiple of stride 3"),
        (["--stride", "two"], 2, "'two' is not a valid integer"),
        (["--fusion", "1,1"], 1, "a pool for each of 4 scales"),
        (["--threshold", "0"], 1, "threshold"),
        (["--set", "network=respike_r81"], 1, "respike_r18"),
        (["--set", "seed=3"], 2, "--seeds"),
        (["--set", "branches=ann"], 2, "--branches"),
        (["--recipe", "nothing"], 1, "demo16"),
        (["--init", "nowhere"], 1, "nowhere"),
        (["--fusion", "additive:1,1"], 1, "or both, such as additive:4,2,1,1"),
        (["--fusion", "default", "additive"], 1, "default and additive are one and the same in respike_tiny"),
        (["--videos", "3"], 2, "--videos goes with the demo's own"),
        (["--scenes", "hard"], 2, "--scenes goes with the demo's own"),
        (["--figure", "top5"], 2, "'clip_top1'"),
        (["--split", "2"], 1, "no splits"),
    ],
)
def test_a_cell_that_cannot_be_is_told_before_anything_is_made(
    call: Call, video_folder: Path, tmp_path: Path, arguments: list[str], code: int, problem: str
) -> None:
    answer = call("ablate", video_folder, "--out", tmp_path / "out", *SMALL, *arguments)
    assert (answer.code, answer.out) == (code, "")
    assert problem in answer.err
    assert not list((tmp_path / "out").rglob("*.tar"))


def test_a_folder_that_is_not_there_is_named(call: Call, tmp_path: Path) -> None:
    answer = call("ablate", tmp_path / "nowhere", "--out", tmp_path / "out", *SMALL)
    assert answer.code == 1
    assert "nowhere" in answer.err


@pytest.mark.slow
def test_killed_in_training_it_goes_on_to_the_weights_it_would_have_had(video_folder: Path, tmp_path: Path) -> None:
    arguments = ["ablate", str(video_folder), "--stride", "4", *SMALL, "--quiet", "--epochs", "2"]
    arguments += ["--set", "batch_size=4", "--set", "save_every_updates=1", "--out"]
    (process,) = start_together(call_respike, str(tmp_path), [*arguments, "cut"], num_processes=1)
    run = tmp_path / "cut/runs/stride4-theta8-hybrid-seed0"
    while not list((run / "state").glob("*.safetensors")) and process.is_alive():
        time.sleep(0.005)
    process.kill()
    process.join()
    assert not list((tmp_path / "cut").glob("cells/*"))
    # as many threads as before: sums may round otherwise on another number
    for name in ("cut", "whole"):
        (process,) = start_together(call_respike, str(tmp_path), [*arguments, name], num_processes=1)
        process.join(timeout=250)
        assert process.exitcode == 0, (tmp_path / "err-0").read_text()
    kept = [json.loads((tmp_path / name / "results.jsonl").read_text()) for name in ("cut", "whole")]
    assert kept[0]["scores"].pop("provenance") | {"checkpoint": ""} == kept[1]["scores"].pop("provenance") | {
        "checkpoint": ""
    }
    assert kept[0] | {"run": ""} == kept[1] | {"run": ""}
