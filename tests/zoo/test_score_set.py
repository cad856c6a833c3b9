"""Score sets: mean and deviation over splits or seeds."""

import pytest
import torch
from respike.common.errors import MismatchError
from respike.zoo.predictions import Row, collect
from respike.zoo.scoring import Scores, find_differences, score_predictions, summarise_scores

from tests.zoo.test_predictions import make_provenance


def _scores(num_right: int, **changes: object) -> Scores:
    """Scores on ten videos of one clip each, of which so many are right."""
    rows = [Row(video=f"v{number}", clip=0, crop=0, label=0) for number in range(10)]
    answers = torch.tensor([[0.8, 0.2] if number < num_right else [0.2, 0.8] for number in range(10)])
    return score_predictions(collect([answers], rows), provenance=make_provenance(**changes))


def test_mean_and_sample_deviation_of_three_splits() -> None:
    shares = [(5, 1), (6, 2), (9, 3)]
    together = summarise_scores(
        [_scores(right, split=split, weights_sha256=str(split), fingerprint=str(split)) for right, split in shares]
    )
    assert together.mean["video"]["top1"] == pytest.approx(20 / 30)
    # ((1/6)² + (1/15)² + (7/30)²) / 2, worked out by hand
    assert together.deviation["clip"]["top1"] == pytest.approx(0.208167, abs=1e-6)
    assert together.mean["clip"]["top5"] == 1
    assert [run["provenance"]["split"] for run in together.to_json()["runs"]] == [1, 2, 3]


def test_a_mean_over_two_data_sets_is_refused() -> None:
    with pytest.raises(MismatchError, match="bits, bytes"):
        summarise_scores([_scores(5), _scores(5, dataset="bytes")])


def test_one_checkpoint_twice_is_refused() -> None:
    with pytest.raises(MismatchError, match="runs/b and runs/a are the same weights"):
        summarise_scores([_scores(5), _scores(5, checkpoint="runs/b")])


def test_what_a_mean_mixes_is_named_but_not_split_and_seed() -> None:
    first = make_provenance(settings={"stride": 4, "seed": 0})
    alike = make_provenance(split=2, settings={"stride": 4, "seed": 1})
    assert find_differences([first, alike]) == ()
    other = make_provenance(branches="ann", settings={"stride": 2, "seed": 0})
    assert find_differences([first, other]) == ("branches is hybrid, ann", "stride is 4, 2")
