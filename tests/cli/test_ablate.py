"""`respike ablate`: a grid that is trained, killed, continued and extended."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from respike.cli.ablate import command
from respike.common.errors import MismatchError, RespikeError
from respike.common.text import format_joules
from respike.data.synthetic import SCENES
from respike.workflows import ablation
from respike.workflows.ablation import DEMO_RECIPES, AblationConfig, AblationFolder
from respike.workflows.plots import METRIC_TITLES
from respike.zoo.nn.config import BRANCHES

from tests.cli.conftest import Answer
from tests.processes import call_respike, start_together

Call = Callable[..., Answer]
SMALL = ["--clip-length", "8", "--epochs", "1", "--set", "network=respike_tiny", "--set", "image_size=32"]
SMALL += ["--set", "device=cpu", "--workers", "1"]


def test_the_choices_of_options_are_those_of_the_library() -> None:
    options = {option.name: option for option in command.params}
    assert list(options["scenes"].type.choices) == list(SCENES) == list(DEMO_RECIPES)
    assert list(options["metric"].type.choices) == list(METRIC_TITLES)
    assert set(options["branches"].type.choices) == set(BRANCHES)


@pytest.fixture(scope="module")
def killed(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ablation of two strides that was stopped when its second cell was trained but not scored."""
    from respike.cli.main import main

    out = tmp_path_factory.mktemp("ablation")
    evaluate_cell = ablation.evaluate_cell
    runs: list[Path] = []

    def stop_at_the_second(run: Path, *arguments: object) -> dict:
        runs.append(run)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return evaluate_cell(run, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablation, "evaluate_cell", stop_at_the_second)
        with pytest.raises(SystemExit) as stopped:
            main(["ablate", str(video_folder), "--out", str(out), "--stride", "2,4", *SMALL, "--quiet"])
    assert stopped.value.code == 130
    return out


@pytest.fixture
def out(killed: Path, tmp_path: Path) -> Path:
    shutil.copytree(killed, tmp_path / "out")
    return tmp_path / "out"


def test_results_are_written_after_each_cell(out: Path) -> None:
    (line,) = (out / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["cell"] == "stride2-theta8-hybrid-seed0"


def test_the_same_command_goes_on_and_reports_what_score_reports(call: Call, out: Path, video_folder: Path) -> None:
    cells = ["stride2-theta8-hybrid-seed0", "stride4-theta8-hybrid-seed0"]
    trained = {path: path.stat().st_mtime_ns for path in out.rglob("best.safetensors")}
    assert len(trained) == 2
    answer = call("ablate", video_folder, "--out", out, "--stride", "2,4", *SMALL, "--json")
    told = json.loads(answer.out)
    assert (told["num_kept"], [cell["cell"] for cell in told["cells"]]) == (1, cells)
    # the second was trained and is only scored
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
        assert columns[8] == format_joules(cell["energy_joules"])
    for name in ("accuracy.png", "accuracy_by_energy.png", "accuracy_by_stride.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"


def test_energy_is_that_of_the_trained_network_on_test_clips(out: Path) -> None:
    (line,) = (out / "results.jsonl").read_text().splitlines()
    result = json.loads(line)
    assert 0 < result["sparse_energy_joules"] < result["energy_joules"] < 1
    assert 0 < result["event_density"] < 1


def test_a_folder_takes_cells_of_one_recipe_only(call: Call, out: Path, video_folder: Path) -> None:
    before = sorted(out.rglob("*"))
    for name in ("learning_rate", "lr"):
        answer = call("ablate", video_folder, "--out", out, "--stride", "2", *SMALL, "--set", f"{name}=0.5")
        assert (answer.code, answer.out) == (1, "")
        assert "holds an ablation with other settings: it differs in learning_rate" in answer.err
    assert sorted(out.rglob("*")) == before


def test_a_folder_takes_cells_of_one_checkpoint_only(call: Call, out: Path, video_folder: Path) -> None:
    answer = call("ablate", video_folder, "--out", out, "--stride", "2", *SMALL, "--init", "respike_tiny.demo16")
    assert (answer.code, answer.out) == (1, "")
    assert "it differs in init" in answer.err


def test_the_same_videos_may_be_named_by_another_path(
    call: Call, out: Path, video_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(video_folder.parent)
    for source, root in ((video_folder.name, []), (video_folder, ["--root", video_folder.name])):
        answer = call("ablate", source, *root, "--out", out, "--stride", "2", *SMALL, "--json")
        assert json.loads(answer.out)["num_kept"] == 1


def test_a_folder_without_a_setting_has_the_default_of_that_setting(tmp_path: Path) -> None:
    folder = AblationFolder(tmp_path)
    folder.require_same({"network": "respike_tiny", "epochs": 3})
    folder.require_same({"network": "respike_tiny", "epochs": 3, "crop": "resized"})
    with pytest.raises(MismatchError, match="it differs in crop"):
        folder.require_same({"network": "respike_tiny", "epochs": 3, "crop": "multi-scale"})


def test_facts_as_they_were_stored_before_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for source, root, split in (("hmdb51", "data/hmdb51", 1), ("demo", "demo/videos", None)):
        folder = AblationFolder(tmp_path / source)
        (tmp_path / source).mkdir()
        folder.require_same({"source": source, "root": root, "split": None})
        folder.require_same({"source": source, "root": str(tmp_path / root) if split else None, "split": split})
        with pytest.raises(MismatchError, match="it differs in root, split"):
            folder.require_same({"source": source, "root": str(tmp_path / "elsewhere"), "split": 2})


@pytest.mark.parametrize(
    ("overrides", "recipe", "image_size"),
    [
        ({"network": "respike_tiny"}, None, 64),
        ({}, None, 224),
        ({"network": "respike_tiny", "image_size": 96}, None, 96),
        ({"network": "respike_tiny"}, "modern", 224),
    ],
)
def test_a_network_is_trained_at_its_own_image_size(overrides: dict, recipe: str | None, image_size: int) -> None:
    config = AblationConfig(source="videos", overrides=overrides, recipe=recipe)
    assert config.read_recipe().training.image_size == image_size


def test_every_cell_starts_from_the_given_checkpoint(
    call: Call, video_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def note(*_: object, config: dict[str, object], init: str, **__: object) -> None:
        asked.append((init, config["branches"]))
        raise RespikeError("enough")

    monkeypatch.setattr(ablation, "train", note)
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
def test_a_damaged_result_is_named_in_the_error(call: Call, out: Path, video_folder: Path, damage: str) -> None:
    (out / "cells/stride2-theta8-hybrid-seed0.json").write_text(damage)
    answer = call("ablate", video_folder, "--out", out, "--stride", "2", *SMALL, "--json")
    assert (answer.code, answer.out) == (1, "")
    error = json.loads(answer.err)
    assert "stride2-theta8-hybrid-seed0.json" in error["error"]
    assert "remove the file" in error["hint"]


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["--stride", "3"], 1, "clip_length 8 is no multiple of stride 3"),
        (["--stride", "two"], 2, "'two' is not a valid integer"),
        (["--fusion", "1,1"], 1, "a pool for each of 4 scales"),
        (["--threshold", "0"], 1, "threshold"),
        (["--set", "network=respike_r81"], 1, "respike_r18"),
        (["--set", "seed=3"], 1, "seed is an axis of the grid"),
        (["--set", "branches=ann"], 1, "branches is an axis of the grid"),
        (["--stride", "2", "4"], 2, "--stride 2,4"),
        (["--stride=2", "4"], 2, "--stride 2,4"),
        (["--recipe", "nothing"], 1, "demo16"),
        (["--init", "nowhere"], 1, "nowhere"),
        (["--fusion", "additive:1,1"], 1, "or both, such as additive:4,2,1,1"),
        (["--fusion", "default,additive"], 1, "default and additive are the same in respike_tiny"),
        (["--videos", "3"], 1, "num_videos is only for videos that the demo makes"),
        (["--videos", "3"], 1, "(--videos)"),
        (["--scenes", "hard"], 1, "scenes is only for videos that the demo makes"),
        (["--figure", "top5"], 2, "'clip_top1'"),
        (["--split", "2"], 1, "no splits"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_made(
    call: Call, video_folder: Path, tmp_path: Path, arguments: list[str], code: int, problem: str
) -> None:
    answer = call("ablate", video_folder, "--out", tmp_path / "out", *SMALL, *arguments)
    assert (answer.code, answer.out) == (code, "")
    assert problem in answer.err
    assert not list((tmp_path / "out").rglob("*.tar"))


def test_a_folder_that_does_not_exist_is_named_in_the_error(call: Call, tmp_path: Path) -> None:
    answer = call("ablate", tmp_path / "nowhere", "--out", tmp_path / "out", *SMALL)
    assert answer.code == 1
    assert "nowhere" in answer.err


@pytest.mark.slow
def test_killed_in_training_it_goes_on_to_the_same_weights(video_folder: Path, tmp_path: Path) -> None:
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
