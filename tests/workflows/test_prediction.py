"""Prediction: the classes of a raw video are those that scoring counts on its shards."""

import tracemalloc
from pathlib import Path

import pytest
import torch
from respike import load_model, make_loader, open_shards, predict
from respike.common.errors import RespikeError, UnreadableVideoError
from respike.data.preparation import prepare
from respike.data.prepare_config import PrepareConfig
from respike.data.video_writer import write_video
from respike.zoo.metrics import average_rows

from tests.cli.conftest import write_run
from tests.conftest import listing_of, moving_square


def probabilities_of_scoring(run: Path, shards: Path) -> dict[str, torch.Tensor]:
    """The probabilities of each test video of the shards, as `score` averages them."""
    model, spec = load_model(run)
    loader = make_loader(open_shards(shards, "test"), batch_size=3, training=False, image_size=spec.image_size)
    rows, names = [], []
    with torch.no_grad():
        for batch in loader:
            rows.append(model(batch.keys, batch.residuals, batch.color).softmax(dim=1)[batch.mask])
            names += [name for name, counts in zip(batch.video_ids, batch.mask.tolist(), strict=True) if counts]
    videos = list(dict.fromkeys(names))
    places = torch.tensor([videos.index(name) for name in names])
    means, _ = average_rows(torch.cat(rows), torch.zeros_like(places), places)
    return dict(zip(videos, means, strict=True))


@pytest.mark.parametrize(
    "settings",
    [
        PrepareConfig(),
        PrepareConfig(color="rgb", threshold=20, key_quality=30, stride=2, clip_step=5, short_side=40),
        PrepareConfig(sampling="uniform", clip_length=8, frame_stride=2),
        PrepareConfig(clip_length=64),
    ],
    ids=["usual", "coarse", "uniform", "padded"],
)
def test_a_prediction_is_what_scoring_counts(settings: PrepareConfig, video_folder: Path, tmp_path: Path):
    prepare(listing_of(video_folder), tmp_path / "shards", settings, num_workers=1)
    run = write_run(tmp_path / "run", tmp_path / "shards")
    expected = probabilities_of_scoring(run, tmp_path / "shards")
    assert len(expected) == 2
    classes = load_model(run)[1].data.classes
    videos = [video_folder / name for name in expected]
    for prediction, probabilities in zip(predict(run, videos, top=9), expected.values(), strict=True):
        by_class = {guess.class_name: guess.probability for guess in prediction.guesses}
        wanted = dict(zip(classes, probabilities.tolist(), strict=True))
        assert by_class == pytest.approx(wanted, abs=1e-6)


def test_one_path_is_one_video(small_run: Path, video_folder: Path):
    (prediction,) = predict(small_run, next(video_folder.glob("*/*.mp4")), top=1)
    assert (len(prediction.guesses), prediction.num_clips) == (1, 2)


def test_a_broken_video_is_an_error_unless_it_is_handled(small_run: Path, video_folder: Path, tmp_path: Path):
    good = next(video_folder.glob("*/*.mp4"))
    videos = [tmp_path / "none.mp4", good]
    with pytest.raises(RespikeError, match=r"none\.mp4: missing") as caught:
        list(predict(small_run, videos))
    assert caught.value.hint == "check the path"
    failed: list[tuple[Path, UnreadableVideoError]] = []
    predictions = list(predict(small_run, videos, on_failure=lambda *failure: failed.append(failure)))
    assert [prediction.video for prediction in predictions] == [str(good)]
    assert [path.name for path, _ in failed] == ["none.mp4"]


def test_each_clip_is_handed_on_as_it_is_classified(small_run: Path, video_folder: Path):
    video, clips = next(video_folder.glob("*/*.mp4")), []
    predictions = predict(
        small_run, video, on_clip=lambda path, clip, guess: clips.append((path, clip.info.clip_index))
    )
    assert clips == []
    assert len(list(predictions)) == 1
    assert clips == [(video, 0), (video, 1)]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_video(small_run: Path, tmp_path: Path):
    """Ten times the frames need no more memory at the peak, except for the numbers of the frames."""
    peaks = []
    for num_frames in (320, 3200):
        frames = moving_square(320)
        path = tmp_path / f"{num_frames}.mp4"
        write_video(path, (frames[number % 320] for number in range(num_frames)), options={"preset": "ultrafast"})
        tracemalloc.start()
        (prediction,) = predict(small_run, path, device="cpu")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert prediction.num_clips == num_frames // 16
    # a clip of these frames is 0.3 MB; 180 more of them would show
    assert peaks[1] - peaks[0] < 3000 * 500
