"""`respike energy`: operations and joules of a name or a checkpoint, and what its firing rates were measured on."""

import json
import shutil
from pathlib import Path

import pytest
from respike.common.errors import SettingError
from respike.data import make_loader, open_shards
from respike.data.preparation import prepare
from respike.data.prepare_config import PrepareConfig
from respike.workflows.ablation import evaluate_cell
from respike.workflows.energy import measure_energy
from respike.workflows.inputs import batches_of, demo_clips
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.energy import estimate_energy

from tests.cli.conftest import write_run
from tests.conftest import listing_of

CROPS = (0.5, 1.0)


@pytest.fixture(scope="module")
def cropped_run(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was validated on the middle quarter of each frame."""
    return write_run(tmp_path_factory.mktemp("cropped"), small_shards, eval_crop=CROPS[0])


def test_rates_are_measured_with_the_scored_crop(call, cropped_run, small_shards):
    model, spec = load_checkpoint(cropped_run)
    on_shards = [
        estimate_energy(
            model,
            make_loader(open_shards(small_shards, "test"), batch_size=2, training=False, image_size=32, eval_crop=crop),
        ).acs
        for crop in CROPS
    ]
    settings = PrepareConfig(**{name: spec.data.settings[name] for name in ("stride", "clip_length")})
    on_a_demo = [
        estimate_energy(model, batches_of(demo_clips(settings, image_size=32), 32, crop)).acs for crop in CROPS
    ]
    for expected, more in ((on_shards, ["--data", small_shards]), (on_a_demo, [])):
        told = json.loads(call("energy", cropped_run, *more, "--compare", "none", "--json").out)
        assert told["report"]["acs"] == pytest.approx(expected[0], rel=1e-9)
        assert told["report"]["acs"] != pytest.approx(expected[1], rel=1e-6)


def test_a_cell_of_an_ablation_is_counted_with_the_scored_crop(cropped_run, small_shards):
    found = evaluate_cell(cropped_run, small_shards, "cpu")["energy_joules"]
    clips = open_shards(small_shards, "test")
    model, _ = load_checkpoint(cropped_run)
    expected = [
        estimate_energy(
            model, make_loader(clips, batch_size=len(clips), training=False, image_size=32, eval_crop=crop)
        ).joules
        for crop in CROPS
    ]
    assert found == pytest.approx(expected[0], rel=1e-9)
    assert found != pytest.approx(expected[1], rel=1e-6)


def test_a_checkpoint_is_counted_on_its_shards(call, small_run: Path, small_shards: Path):
    answer = call("energy", small_run, "--data", small_shards, "--clips", "3", "--json")
    told = json.loads(answer.out)
    report = told["report"]
    assert (told["image_size"], told["num_frames"], told["num_keys"], report["num_clips"]) == (32, 16, 4, 3)
    assert told["remarks"] == []
    assert sum(layer["joules"] for layer in report["layers"]) == pytest.approx(report["joules"])
    assert sum(branch["acs"] for branch in report["branches"].values()) == pytest.approx(report["acs"])
    assert 0 < report["acs"] < report["macs"]
    assert report["joules"] < report["most_joules"]


def test_it_is_compared_with_its_ann_and_3d_networks_at_both_sizes(call, small_run: Path, small_shards: Path):
    told = json.loads(call("energy", small_run, "--data", small_shards, "--clips", "1", "--json").out)
    names = [row["name"] for row in told["compared"]]
    assert names[1:] == [
        "ANN alone, 4 key frames at 32²",
        "ANN alone, all 16 frames at 32²",
        *(f"{name} at {size}²" for name in ("r3d_18", "mc3_18", "r2plus1d_18") for size in (112, 224)),
    ]
    mine, keys, frames = told["compared"][:3]
    assert mine["ratio"] == 1
    assert frames["macs"] == 4 * keys["macs"] == 4 * told["report"]["branches"]["ANN"]["macs"]
    for row in told["compared"]:
        assert row["ratio"] == pytest.approx(row["joules"] / mine["joules"])


def test_data_that_does_not_fit_is_refused_or_remarked_on(call, small_run, video_folder, tmp_path):
    shards = tmp_path / "stride-2"
    prepare(listing_of(video_folder), shards, PrepareConfig(stride=2), num_workers=1)
    asked = ("energy", small_run, "--data", shards, "--clips", "1", "--compare", "none")
    refused = call(*asked)
    assert refused.code == 1
    assert "stride is 4 in the checkpoint and 2 in the data" in refused.err
    told = json.loads(call(*asked, "--force", "--json").out)
    assert told["remarks"] == ["stride is 4 in the checkpoint and 2 in the data"]
    # a network without weights has been made for no data
    assert call("energy", "respike_tiny", *asked[2:]).code == 0


def test_a_name_has_random_weights_and_rates_of_a_demo_video(call):
    answer = call("energy", "respike_tiny", "--compare", "none")
    assert answer.code == 0
    assert "weights are random" in answer.out
    assert "demo video" in answer.out
    assert "at any firing rates a clip takes from" in answer.out
    assert "at every step, as the published code computes them" in " ".join(answer.out.split())


def test_totals_are_printed_first_and_layers_only_on_request(call):
    asked = ("energy", "respike_tiny", "--compare", "none")
    parts, with_layers, told = (call(*asked, *more).out for more in ((), ("--layers",), ("--json",)))
    layers = [layer["name"] for layer in json.loads(told)["report"]["layers"]]
    first = [line.split()[0] for line in parts.splitlines()[1:]]
    assert first[:2] == ["part", "ANN"]
    assert first[2:7] == ["ann.conv1", "ann.layer1", "ann.layer2", "ann.layer3", "ann.layer4"]
    assert first[7:13] == ["SNN", "snn.stem", *(f"snn.stages.{stage}" for stage in range(4))]
    assert first[13:18] == ["fusion", "fusions.2", "fusions.3", "head", "all"]
    assert f"layers: {len(layers)}; --layers prints a row for each" in parts
    assert not set(layers) - {"head"} & set(first)
    # the same summary, and after it the layers
    rest = with_layers.splitlines()[-len(layers) :]
    assert [line.split()[0] for line in rest] == layers


def test_the_demo_video_is_cut_as_asked(call):
    told = json.loads(
        call("energy", "respike_tiny", "--compare", "none", "--stride", "2", "--clip-length", "8", "--json").out
    )
    assert (told["num_frames"], told["num_keys"], told["report"]["num_clips"]) == (8, 4, 4)


def test_a_network_without_an_ann_is_not_compared_with_one(call, small_shards: Path, tmp_path: Path):
    run = write_run(tmp_path / "snn", small_shards, "snn")
    told = json.loads(call("energy", run, "--data", small_shards, "--compare", "none", "--json").out)
    assert len(told["compared"]) == 1
    assert set(told["report"]["branches"]) == {"SNN", "head"}


def test_the_comparison_is_drawn(call, small_run: Path, small_shards: Path, tmp_path: Path):
    picture = tmp_path / "energy.png"
    answer = call("energy", small_run, "--data", small_shards, "--clips", "1", "--png", picture)
    assert f"wrote {picture}" in answer.out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_unknown_network_lists_the_names(call):
    answer = call("energy", "respike_r19")
    assert answer.code == 1
    assert "respike_r19" in answer.err
    assert "respike_r18" in answer.err


def test_an_impossible_image_size_is_refused_first(call):
    answer = call("energy", "nowhere", "--image-size", "65")
    assert answer.code == 1
    assert answer.err.splitlines()[1] == "hint: for 65 take 64 or 96 (--image-size)"


@pytest.mark.parametrize(
    ("typed", "meant"), [("respike_r81", "respike_r18"), ("demo16", "respike_tiny.demo16"), ("run/bets", "run/best")]
)
def test_a_mistyped_network_names_the_nearest(call, small_run: Path, tmp_path: Path, monkeypatch, typed, meant):
    shutil.copytree(small_run, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    assert f"hint: did you mean '{meant}" in call("energy", typed).err


def test_a_mistyped_run_names_the_nearest_in_every_command(call, small_run: Path, tmp_path: Path, monkeypatch):
    shutil.copytree(small_run, tmp_path / "runs/mine")
    monkeypatch.chdir(tmp_path)
    for arguments in (("predict", "runs/mnie", "x.mp4"), ("score", "runs/mnie", "--data", "x")):
        assert "hint: did you mean 'runs/mine'?" in call(*arguments).err


def test_an_unknown_baseline_names_the_nearest_and_all(call):
    answer = call("energy", "respike_tiny", "--compare", "r3d18")
    assert answer.code == 1
    assert "did you mean 'r3d_18'? choose from mc3_18, " in answer.err


def test_settings_of_the_demo_video_are_refused_with_shards(call, small_run: Path, small_shards: Path):
    answer = call("energy", small_run, "--data", small_shards, "--stride", "2")
    assert answer.code == 1
    assert "--stride" in answer.err


def test_networks_to_compare_with_are_separated_by_commas(call):
    told = json.loads(call("energy", "respike_tiny", "--compare", "r3d_18, mc3_18", "--json").out)
    names = [f"{name} at {size}²" for name in ("r3d_18", "mc3_18") for size in (112, 224)]
    assert [row["name"] for row in told["compared"]][3:] == names


def test_networks_separated_by_spaces_are_refused_with_the_right_form(call):
    answer = call("energy", "respike_tiny", "--compare", "r3d_18", "mc3_18")
    assert answer.code == 2
    assert "--compare r3d_18,mc3_18" in answer.err


def test_the_function_returns_what_the_command_prints(call):
    told = json.loads(call("energy", "respike_tiny", "--compare", "r3d_18", "--json").out)
    assert measure_energy("respike_tiny", compare=["r3d_18"]).to_json() == told
    with pytest.raises(SettingError, match="data was given"):
        measure_energy("respike_tiny", "shards", stride=2)
