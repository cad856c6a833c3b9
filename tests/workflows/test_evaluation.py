"""Evaluation from Python: the guard against training videos, views, and predictions in a file."""

import dataclasses
from pathlib import Path

import pytest
from respike import evaluate, load_model, open_shards
from respike.common.errors import MismatchError, RespikeError, SettingError
from respike.workflows.evaluation import evaluate_all, read_scored, summarise
from respike.zoo.checkpoint import save_checkpoint
from respike.zoo.compatibility import hash_video


@pytest.fixture(scope="module")
def honest_run(small_run: Path, small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network with the hashes of its training videos."""
    model, spec = load_model(small_run)
    videos = {hash_video(row.video) for row in open_shards(small_shards, "train").clips}
    path = tmp_path_factory.mktemp("honest") / "best.safetensors"
    save_checkpoint(path, model, dataclasses.replace(spec, train_videos=tuple(sorted(videos))))
    return path.parent


def test_the_evaluation_subset_is_scored(honest_run: Path, small_shards: Path) -> None:
    scored = evaluate(honest_run, small_shards, device="cpu")
    tested = open_shards(small_shards, "test")
    assert scored.scores.num_clips == len(tested)
    assert scored.scores.provenance.subset == "test"
    assert (scored.title, scored.classes, scored.scores.forced) == (str(honest_run), tested.spec.classes, False)


def test_training_videos_are_refused_unless_forced(honest_run: Path, small_shards: Path) -> None:
    with pytest.raises(MismatchError, match="trained on"):
        evaluate(honest_run, small_shards, subset="train")
    forced = evaluate(honest_run, small_shards, subset="train", views="1", force=True)
    assert forced.scores.forced
    assert forced.scores.num_clips == forced.scores.num_videos


def test_written_predictions_give_the_same_scores(honest_run: Path, small_shards: Path, tmp_path: Path) -> None:
    scored = evaluate(honest_run, small_shards, views="1x3", predictions=tmp_path / "kept")
    assert read_scored(tmp_path / "kept").scores.to_json() == scored.scores.to_json()
    assert scored.scores.num_views == 3 * scored.scores.num_clips


def test_several_checkpoints_are_checked_before_the_first(honest_run: Path, small_shards: Path, tmp_path: Path) -> None:
    with pytest.raises(RespikeError, match="nowhere"):
        evaluate_all([honest_run, "nowhere"], [small_shards], predictions=[tmp_path / "1", tmp_path / "2"])
    assert not list(tmp_path.iterdir())
    with pytest.raises(MismatchError, match="the same weights on the same data"):
        evaluate_all([honest_run, honest_run], [small_shards])
    with pytest.raises(SettingError, match="data sets: 3, checkpoints: 2"):
        evaluate_all([honest_run, honest_run], [small_shards] * 3)
    with pytest.raises(SettingError, match="files for predictions: 1, checkpoints: 2"):
        evaluate_all([honest_run, honest_run], [small_shards], predictions=[tmp_path / "1"])


def test_a_mean_over_one_checkpoint_twice_is_refused(honest_run: Path, small_shards: Path) -> None:
    scored = evaluate(honest_run, small_shards, views="1")
    with pytest.raises(MismatchError):
        summarise([scored, scored])


def test_a_name_without_weights_cannot_be_loaded() -> None:
    with pytest.raises(RespikeError, match="name of a network without weights"):
        evaluate("respike_tiny", "nowhere")
