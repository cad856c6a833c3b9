"""`respike predict`: what it tells of a raw video is what scoring counts on that video's shards."""

import json
from pathlib import Path

import pytest
import torch
from respike.cli.predict import predict_video
from respike.common.progress import SILENCE
from respike.data import make_loader, open_shards
from respike.data.preparation import prepare
from respike.data.prepare_config import PrepareConfig
from respike.data.video_writer import write_video
from respike.workflows.inputs import settings_of
from respike.zoo.checkpoint import load_checkpoint
from respike.zoo.metrics import average_rows

from tests.cli.conftest import write_run
from tests.conftest import listing_of, moving_square


def probabilities_of_scoring(run: Path, shards: Path) -> dict[str, torch.Tensor]:
    """The probabilities of each test video of the shards, as `score` averages them."""
    model, spec = load_checkpoint(run)
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
    model, spec = load_checkpoint(run)
    for name, probabilities in expected.items():
        told = predict_video(video_folder / name, model, spec, settings_of(spec), top=9, task=SILENCE)
        by_class = {guess.class_name: guess.probability for guess in told.guesses}
        wanted = dict(zip(spec.data.classes, probabilities.tolist(), strict=True))
        assert by_class == pytest.approx(wanted, abs=1e-6)


def test_json_is_an_object_a_line_with_latency(call, small_run: Path, video_folder: Path):
    videos = sorted(video_folder.glob("*/*.mp4"))[:2]
    answer = call("predict", small_run, *videos, "--json")
    assert (answer.code, answer.err) == (0, "")
    for line, path in zip(answer.out.splitlines(), videos, strict=True):
        told = json.loads(line)
        assert (told["video"], told["num_clips"]) == (str(path), 2)
        assert sum(guess["probability"] for guess in told["predictions"]) == pytest.approx(1)
        assert told["video_seconds"] == pytest.approx(1.6, abs=0.1)
        assert min(told["latency"].values()) > 0
        decode, network = (told["latency"][f"{part}_ms_per_clip"] for part in ("decode", "network"))
        assert told["latency"]["first_answer_ms"] <= 2 * (decode + network) + 1e-3


def test_top_says_how_many_classes_and_the_likeliest_comes_first(call, small_run: Path, video_folder: Path):
    video = next(video_folder.glob("*/*.mp4"))
    one, both = (json.loads(call("predict", small_run, video, "--top", top, "--json").out) for top in (1, 5))
    assert (len(one["predictions"]), len(both["predictions"])) == (1, 2)
    assert both["predictions"][0] == one["predictions"][0]
    assert both["predictions"][0]["probability"] >= both["predictions"][1]["probability"]


def test_broken_videos_are_told_with_what_to_do_the_rest_go_on_and_the_end_is_1(
    call, small_run: Path, video_folder: Path, tmp_path: Path
):
    good = next(video_folder.glob("*/*.mp4"))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(good.read_bytes()[:-3000])
    answer = call("predict", small_run, cut, good, tmp_path / "none.mp4", "--quiet")
    assert answer.code == 1
    assert str(good) in answer.out
    assert str(cut) not in answer.out
    first, what_next, second, check = answer.err.splitlines()
    assert first.startswith(f"error: {cut}: open: ")
    assert what_next.startswith("hint: see whether it is a video, and whole; ")
    assert second == f"error: {tmp_path / 'none.mp4'}: missing: No such file or directory"
    assert check == "hint: check the path"


def test_a_folder_for_a_video_is_told_to_name_those_in_it(call, small_run: Path, tmp_path: Path):
    answer = call("predict", small_run, tmp_path, "--quiet")
    assert answer.err.splitlines()[1] == f"hint: it is a folder: name the videos in it, as {tmp_path}/*.mp4"


def test_a_broken_video_is_an_object_with_its_error_in_json(call, small_run: Path, tmp_path: Path):
    answer = call("predict", small_run, tmp_path / "none.mp4", "--json")
    assert answer.code == 1
    assert json.loads(answer.out) == {
        "video": str(tmp_path / "none.mp4"),
        "error": "missing: No such file or directory",
        "hint": "check the path",
    }


def test_each_clip_is_told_with_its_times(call, small_run: Path, video_folder: Path):
    video = next(video_folder.glob("*/*.mp4"))
    lines = [json.loads(line) for line in call("predict", small_run, video, "--each-clip", "--json").out.splitlines()]
    assert [line.get("clip") for line in lines] == [0, 1, None]
    assert (lines[0]["from_seconds"], lines[1]["from_seconds"]) == (0, 0.64)
    text = call("predict", small_run, video, "--each-clip").out
    assert f"{video.name} 0.64 to 1.24 s: " in text


def test_a_name_without_weights_predicts_nothing(call, video_folder: Path):
    answer = call("predict", "respike_tiny", next(video_folder.glob("*/*.mp4")))
    assert answer.code == 1
    assert "without weights" in answer.err


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(small_run: Path, tmp_path: Path):
    """Ten times the frames take no more memory at their peak, but for the frames' numbers."""
    import tracemalloc

    model, spec = load_checkpoint(small_run)
    peaks = []
    for num_frames in (320, 3200):
        frames = moving_square(320)
        path = tmp_path / f"{num_frames}.mp4"
        write_video(path, (frames[number % 320] for number in range(num_frames)), options={"preset": "ultrafast"})
        tracemalloc.start()
        told = predict_video(path, model, spec, settings_of(spec), top=1, task=SILENCE)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert told.num_clips == num_frames // 16
    # a clip of these frames is 0.3 MB; 180 more of them would show
    assert peaks[1] - peaks[0] < 3000 * 500
