"""Prediction promises: the mean of the clips' probabilities, and no answer that is none."""

import pytest
import torch
from respike.common.errors import RespikeError
from respike.zoo.predictions import VideoVote, best_guesses
from torch import nn

from tests.zoo.batches import make_batch


class Told(nn.Module):
    """A network that answers what it was told, batch after batch."""

    def __init__(self, *answers):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.answers = list(answers)

    def forward(self, keys, residuals, color):
        return torch.tensor(self.answers.pop(0))


def test_a_video_is_the_mean_of_its_clips_probabilities():
    vote = VideoVote(Told([[0.0, 1.0]], [[2.0, 0.0], [0.0, 0.0]]))
    first = vote.add(make_batch([0]))
    rest = vote.add(make_batch([0, 1]))
    assert vote.num_clips == 3
    torch.testing.assert_close(vote.probabilities(), torch.cat([first, rest]).mean(dim=0))


def test_an_answer_that_is_no_number_names_the_video():
    with pytest.raises(RespikeError, match="video-0"):
        VideoVote(Told([[float("nan"), 0.0]])).add(make_batch([0]))


def test_a_video_without_a_clip_has_no_probabilities():
    with pytest.raises(RespikeError, match="no clip"):
        VideoVote(Told()).probabilities()


def test_guesses_come_likeliest_first_and_no_more_than_there_are():
    guesses = best_guesses(torch.tensor([0.2, 0.5, 0.3]), ("a", "b", "c"), 9)
    assert [guess.class_name for guess in guesses] == ["b", "c", "a"]
    assert guesses[0].probability == 0.5
