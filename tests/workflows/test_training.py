"""Training from Python: settings by name, defaults, refusals, and how a stopped run continues."""

import shutil
import signal
from pathlib import Path

import pytest
from respike import TrainConfig, train
from respike.common.errors import MismatchError, RespikeError, SettingError
from respike.data import open_shards
from respike.data.preparation import prepare
from respike.data.prepare_config import PrepareConfig
from respike.workflows.training import TrainOutcome
from respike.zoo.recipe import Recipe, read_recipe

from tests.conftest import listing_of

TINY = {"epochs": 1, "image_size": 32, "device": "cpu"}


@pytest.fixture(scope="module")
def place(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one data set under shards/."""
    folder = tmp_path_factory.mktemp("training")
    shutil.copytree(small_shards, folder / "shards" / "small")
    return folder


@pytest.fixture(scope="module")
def trained(place: Path) -> TrainOutcome:
    """A run of one epoch in that folder, with all defaults."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return train(network="respike_tiny", config={"epochs": 1, "device": "cpu"})


@pytest.fixture(autouse=True)
def _at_the_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def test_the_defaults_find_data_and_name_the_run(trained: TrainOutcome) -> None:
    assert trained.out == Path("runs/respike_tiny-folder")
    assert trained.best.is_file()
    assert trained.last.is_file()
    assert (trained.best_epoch, len(trained.history), trained.was_done) == (1, 1, False)
    assert (trained.out / "curves.png").is_file()
    parts = open_shards("shards/small", "train").hold_out(0.1)
    assert (trained.num_train_clips, trained.num_validation_clips) == tuple(map(len, parts))


def test_a_network_has_its_own_image_size(trained: TrainOutcome) -> None:
    assert read_recipe(trained.out / "recipe.toml").training.image_size == 64


def test_the_batch_is_lowered_unless_it_is_given(trained: TrainOutcome) -> None:
    assert read_recipe(trained.out / "recipe.toml").training.batch_size == trained.num_train_clips
    with pytest.raises(RespikeError, match="a batch size of at most 16"):
        train(network="respike_tiny", config=TINY | {"batch_size": 1000}, out="large")


def test_settings_go_by_their_names_or_those_of_options(tmp_path: Path) -> None:
    train(network="respike_tiny", branches="snn", config=TINY | {"lr": 0.5, "weight_decay": 0}, out=tmp_path / "run")
    recipe = read_recipe(tmp_path / "run" / "recipe.toml")
    assert (recipe.branches, recipe.training.learning_rate, recipe.training.weight_decay) == ("snn", 0.5, 0)


def test_a_config_and_a_recipe_may_be_objects(tmp_path: Path) -> None:
    recipe, config = Recipe(network="respike_tiny", branches="ann"), TrainConfig(**TINY, label_smoothing=0.1)
    train(recipe=recipe, config=config, out=tmp_path / "run")
    written = read_recipe(tmp_path / "run" / "recipe.toml")
    assert (written.network, written.branches, written.training.label_smoothing) == ("respike_tiny", "ann", 0.1)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"config": {"learning_rat": 1}}, "no setting 'learning_rat'"),
        ({"config": {"lr": -1}}, "learning_rate is -1"),
        ({"network": "respike_r81"}, "respike_r81"),
        ({"recipe": "hmdb"}, "no recipe 'hmdb'"),
        ({"data": "nowhere"}, "nowhere"),
        ({"init": "nowhere"}, "no checkpoint"),
        ({"resume": True}, "no run under runs/"),
    ],
)
def test_what_is_not_allowed_is_named(arguments: dict[str, object], problem: str, trained: TrainOutcome) -> None:
    before = sorted(Path().rglob("*"))
    with pytest.raises(RespikeError, match=problem):
        train(**{"network": "respike_tiny", **arguments})
    assert sorted(Path().rglob("*")) == before


def test_a_complete_run_is_left_as_it_is(trained: TrainOutcome) -> None:
    again = train(out=trained.out, resume=True)
    assert again.was_done
    assert again.to_json() == trained.to_json()
    with pytest.raises(MismatchError, match="it differs in learning_rate"):
        train(out=trained.out, resume=True, config={"lr": 0.5})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_stop_names_the_run_folder_to_resume(number: signal.Signals, tmp_path: Path) -> None:
    shutil.copytree("shards", tmp_path / "shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        stopped: list[Path] = []

        def stop(run: Path) -> None:
            stopped.append(run)
            signal.raise_signal(number)

        # no folder is given: the hint names the one that was chosen
        with pytest.raises(RespikeError, match="training stopped in epoch 1") as caught:
            train(network="respike_tiny", config=TINY, on_start=stop)
        assert stopped == [Path("runs/respike_tiny-folder")]
        assert caught.value.code == 128 + number
        assert caught.value.hint == "go on with `respike train --resume --out runs/respike_tiny-folder`"
        assert train(out=stopped[0], resume=True).out == stopped[0]


def test_a_batch_of_one_value_a_channel_is_refused_before_training(video_folder: Path, tmp_path: Path) -> None:
    prepare(listing_of(video_folder), tmp_path / "shards", PrepareConfig(stride=4, clip_length=4), num_workers=1)
    wanted = r"the batch norm ann\.\S+ would get one value a channel.*raise batch_size to 2"
    with pytest.raises(SettingError, match=wanted) as caught:
        train(tmp_path / "shards", network="respike_tiny", config=TINY | {"batch_size": 1}, out=tmp_path / "run")
    assert caught.value.setting == "batch_size"
    assert not (tmp_path / "run").exists()


def test_a_setting_error_names_the_setting() -> None:
    with pytest.raises(SettingError) as caught:
        train(network="respike_tiny", config={"epochs": 0})
    assert caught.value.setting == "epochs"
