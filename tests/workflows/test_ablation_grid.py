"""Ablation grid: its points and cells, their networks, and means over seeds."""

from pathlib import Path

import pytest
import torch
from respike.common.errors import SettingError
from respike.workflows.ablation_grid import Cell, Grid, GridPoint, summarize_cells
from respike.zoo.checkpoint import CheckpointSpec, load_checkpoint, save_checkpoint
from respike.zoo.model_options import ModelOptions
from respike.zoo.models import FusionVariant, create_variant, parse_fusion, variant_config

from tests.zoo.batches import make_batch, make_data_spec


def test_every_combination_is_a_cell() -> None:
    cells = Grid(strides=(2, 4), thresholds=(1, 8), branches=("hybrid", "ann"), num_seeds=3).cells()
    assert len(cells) == len({cell.name for cell in cells}) == 24
    assert [cell.seed for cell in cells] == sorted(cell.seed for cell in cells)
    assert cells[0].name == "stride2-theta1-hybrid-seed0"


def test_no_network_is_trained_twice_under_two_names() -> None:
    fusions = ("default", "none", "0,0,0,0", "additive:0,0,0,0", "0,0,1,1")
    grid = Grid(branches=("hybrid", "concat", "ann", "ann"), fusions=fusions)
    assert [(each.branches, each.fusion_name) for each in grid.points()] == [
        ("hybrid", "default"),
        ("concat", "none"),
        ("hybrid", "0,0,1,1"),
        ("ann", "none"),
    ]


@pytest.mark.parametrize(
    "changes",
    [{"strides": ()}, {"num_seeds": 0}, {"branches": ("both",)}]
    + [{"fusions": (text,)} for text in ("4,2,1", "4,2,1,x", "addition", "additive:", "additive:4,2", ":4,2,1,1", "")],
)
def test_an_impossible_grid_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SettingError):
        Grid(**changes)


def test_a_fusion_is_read_from_its_name() -> None:
    assert parse_fusion("default") == FusionVariant()
    assert parse_fusion("none") == FusionVariant(pools=(0, 0, 0, 0))
    assert parse_fusion("additive") == FusionVariant(kind="additive")
    assert parse_fusion("4,2,1,1") == FusionVariant(pools=(4, 2, 1, 1))
    assert parse_fusion("faithful:4,2,1,1") == FusionVariant(kind="faithful", pools=(4, 2, 1, 1))
    for text in ("default", "none", "additive", "4,2,1,1", "faithful:4,2,1,1"):
        assert parse_fusion(text).name == text


def test_different_fusions_have_different_folders() -> None:
    fusions = ("default", "additive", "4,2,1,1", "additive:4,2,1,1")
    names = [each.name for each in Grid(fusions=fusions).points()]
    assert names[0] == "stride4-theta8-hybrid"
    assert names[3] == "stride4-theta8-hybrid-additive-fusion4.2.1.1"
    assert len(set(names)) == 4


def test_the_kind_of_fusion_decides_how_pooled_maps_are_added() -> None:
    own = variant_config("respike_r18", 3, "hybrid")
    additive = variant_config("respike_r18", 3, "hybrid", None, parse_fusion("additive"))
    assert (own.fusion, own.name) == ("faithful", "respike_r18")
    assert (additive.fusion, additive.name, additive.fusion_pools) == ("additive", "respike", own.fusion_pools)
    assert variant_config("respike_r18", 3, "hybrid", None, parse_fusion("faithful")) == own
    # nothing is pooled there
    tiny = variant_config("respike_tiny", 3, "hybrid", None, parse_fusion("additive"))
    assert tiny == variant_config("respike_tiny", 3, "hybrid")


def test_pools_decide_at_which_scales_is_fused() -> None:
    own = create_variant("respike_tiny", num_classes=3, branches="hybrid")
    fewer = create_variant("respike_tiny", num_classes=3, branches="hybrid", fusion=parse_fusion("0,0,0,1"))
    assert own.config.name == "respike_tiny"
    assert fewer.config.fusion_pools == (0, 0, 0, 1)
    assert fewer.config.name != "respike_tiny"
    count = [sum(each.numel() for each in model.fusions.parameters()) for model in (own, fewer)]
    assert count[0] > count[1] > 0
    batch = make_batch([0, 1])
    assert fewer(batch.keys, batch.residuals, batch.color).shape == (2, 3)


def test_the_default_pools_given_explicitly_change_nothing() -> None:
    same = create_variant("respike_tiny", num_classes=3, branches="hybrid", fusion=parse_fusion("0,0,1,1"))
    assert same.config.name == "respike_tiny"


def test_weights_of_a_variant_are_loaded_again(tmp_path: Path) -> None:
    model = create_variant("respike_tiny", num_classes=3, branches="hybrid", fusion=parse_fusion("0,0,0,1"))
    spec = CheckpointSpec(
        model=model.config.to_json(), image_size=32, data=make_data_spec(), training={}, epoch=1, scores={}
    )
    save_checkpoint(tmp_path / "best.safetensors", model, spec)
    loaded, _ = load_checkpoint(tmp_path)
    assert loaded.config == model.config
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), loaded.parameters(), strict=True))


def test_options_and_pools_can_be_combined() -> None:
    options = ModelOptions(snn_width=32, neuron="plif")
    config = variant_config("respike", 3, "hybrid", options, parse_fusion("0,0,1,1"))
    assert config.snn == variant_config("respike", 3, "hybrid", options).snn
    assert config.fusion_pools == (0, 0, 1, 1)


def _result(video: float, joules: float) -> dict[str, object]:
    accuracy = {"top1": video, "mean_class_accuracy": video}
    return {
        "scores": {"video": accuracy, "clip": {"top1": video / 2}},
        "energy_joules": joules,
        "sparse_energy_joules": joules / 2,
        "event_density": 0.03,
        "num_parameters": 7,
    }


def test_a_summary_is_mean_and_sample_deviation_over_seeds() -> None:
    two, four = GridPoint(stride=2, threshold=8), GridPoint(stride=4, threshold=8)
    results = [
        (Cell(point=two, seed=0), _result(0.5, 1e-3)),
        (Cell(point=four, seed=0), _result(0.4, 5e-4)),
        (Cell(point=two, seed=1), _result(0.7, 3e-3)),
    ]
    first, second = summarize_cells(results)
    assert (first.point, first.num_seeds, second.point, second.num_seeds) == (two, 2, four, 1)
    assert first.values["video_top1"] == [0.5, 0.7]
    assert first.means["video_top1"] == pytest.approx(0.6)
    assert first.deviations["video_top1"] == pytest.approx(0.02**0.5)
    assert first.energy_joules == pytest.approx(2e-3)
    assert second.deviations["video_top1"] is None
