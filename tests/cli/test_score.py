"""`respike score`: views, kept predictions, several checkpoints, and what a result says of itself."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import respike
import torch
from respike.data import open_shards
from respike.data.preparation import prepare
from respike.data.prepare_config import PrepareConfig
from respike.data.verification import verify
from respike.types import DataSpec, VideoListing
from respike.zoo.checkpoint import CheckpointSpec, load_checkpoint, save_checkpoint
from respike.zoo.compatibility import hash_video
from respike.zoo.factory import create_model

from tests.cli.conftest import Answer
from tests.conftest import listing_of
from tests.data.forging import reseal

Call = Callable[..., Answer]


def make_split(listing: VideoListing, split: int) -> VideoListing:
    """The same videos as split 1, 2 or 3 of a data set, each with other videos to test on."""
    videos = [
        dataclasses.replace(video, subset="test" if number % 3 == split - 1 else "train")
        for number, video in enumerate(listing.videos)
    ]
    return dataclasses.replace(listing, dataset="bits", split=split, videos=tuple(videos))


def write_run(folder: Path, data: DataSpec, seen: list[str] | None = None, seed: int = 0, **training: object) -> Path:
    """A run's folder with a network whose answers come from chance and differ from clip to clip."""
    torch.manual_seed(seed)
    model = create_model("respike_tiny", num_classes=len(data.classes))
    torch.nn.init.normal_(model.head.weight, std=3.0)
    spec = CheckpointSpec(
        model=model.config.to_json(),
        image_size=32,
        data=data,
        training=training,
        epoch=1,
        scores={},
        train_videos=tuple(map(hash_video, seen or [])),
    )
    save_checkpoint(folder / "best.safetensors", model, spec)
    return folder


@pytest.fixture(scope="session")
def work(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder: three splits under shards/, a run for each; 40 frames a video are five clips of 8."""
    folder = tmp_path_factory.mktemp("splits")
    for split in (1, 2, 3):
        out = folder / f"shards/bits-split{split}"
        prepare(make_split(listing_of(video_folder), split), out, PrepareConfig(clip_length=8), num_workers=1)
        train = open_shards(out, "train")
        write_run(folder / f"runs/{split}", train.spec, [row.video for row in train.clips], seed=split)
    return folder


@pytest.fixture
def at_work(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(work)


pytestmark = pytest.mark.usefixtures("at_work")


def told_by(answer: Answer) -> dict:
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def test_each_checkpoint_finds_the_shards_it_was_trained_on(call: Call) -> None:
    for split in (1, 2, 3):
        told = told_by(call("score", f"runs/{split}", "--json"))
        assert told["provenance"]["split"] == split
        assert told["fingerprint"] == open_shards(f"shards/bits-split{split}").spec.fingerprint


def test_a_result_says_what_it_was_made_on_and_how(call: Call) -> None:
    told = told_by(call("score", "runs/1", "--json"))
    stored = open_shards("shards/bits-split1", "test")
    known = told["provenance"]
    assert (told["num_clips"], told["num_videos"], told["num_views"]) == (20, 4, 20)
    assert {name: known[name] for name in ("dataset", "subset", "num_listed", "num_skipped")} == {
        "dataset": "bits",
        "subset": "test",
        "num_listed": 12,
        "num_skipped": 0,
    }
    assert known["settings"] == dict(stored.spec.settings)
    assert known["weights_sha256"] == load_checkpoint("runs/1")[1].weights_sha256
    assert (known["checkpoint"], known["network"], known["image_size"]) == ("runs/1", "respike_tiny", 32)
    assert (known["respike_version"], known["torch_version"]) == (respike.__version__, str(torch.__version__))
    assert known["device"].startswith("cpu (")
    assert known["overruled"] == []
    assert [row["class"] for row in told["per_class"]] == list(stored.spec.classes)
    assert sum(row["num_videos"] for row in told["per_class"]) == 4


def test_missing_videos_are_counted(call: Call, video_folder: Path, tmp_path: Path) -> None:
    listing = make_split(listing_of(video_folder), 1)
    gone = dataclasses.replace(listing.videos[0], path=None)
    listing = dataclasses.replace(listing, videos=(gone, *listing.videos[1:]))
    prepare(listing, tmp_path / "shards", PrepareConfig(clip_length=8), num_workers=1)
    answer = call("score", "runs/1", "--data", tmp_path / "shards")
    assert f"1 of the 4 videos of test: {gone.video_id}" in answer.out
    known = told_by(call("score", "runs/1", "--data", tmp_path / "shards", "--json"))["provenance"]
    assert (known["num_listed"], known["num_skipped"], known["missing"]) == (12, 1, [gone.video_id])
    # of the training videos none is missing
    trained_on = ("--subset", "train", "--force", "--json")
    assert told_by(call("score", "runs/1", "--data", tmp_path / "shards", *trained_on))["provenance"]["missing"] == []


@pytest.mark.parametrize("what", ["without subsets", "not there"])
def test_missing_videos_without_subsets_are_counted_together(
    call: Call, video_folder: Path, tmp_path: Path, what: str
) -> None:
    listing = make_split(listing_of(video_folder), 1)
    listing = dataclasses.replace(
        listing, videos=(dataclasses.replace(listing.videos[0], path=None), *listing.videos[1:])
    )
    out = tmp_path / "shards"
    prepare(listing, out, PrepareConfig(clip_length=8), num_workers=1)
    if what == "not there":
        (out / "skipped.jsonl").unlink()
    else:
        row = json.loads((out / "skipped.jsonl").read_text())
        del row["subset"]
        (out / "skipped.jsonl").write_text(json.dumps(row) + "\n")
        reseal(out)
        assert not verify(out).faults
    assert "1 of the 12 videos listed, in all subsets" in call("score", "runs/1", "--data", out).out
    assert told_by(call("score", "runs/1", "--data", out, "--json"))["provenance"]["missing"] is None


def test_a_changed_list_of_missing_videos_is_refused(call: Call, video_folder: Path, tmp_path: Path) -> None:
    listing = make_split(listing_of(video_folder), 1)
    listing = dataclasses.replace(
        listing, videos=(dataclasses.replace(listing.videos[0], path=None), *listing.videos[1:])
    )
    prepare(listing, tmp_path / "shards", PrepareConfig(clip_length=8), num_workers=1)
    path = tmp_path / "shards" / "skipped.jsonl"
    path.write_text(path.read_text().replace('"test"', '"train"'))
    answer = call("score", "runs/1", "--data", tmp_path / "shards")
    assert (answer.code, answer.out) == (1, "")
    assert "skipped.jsonl: was changed after it was written" in answer.err


@pytest.mark.parametrize(
    ("views", "num_clips", "num_views"),
    [("all", 20, 20), ("1", 4, 4), ("3", 12, 12), ("2x3", 8, 24), ("allx3", 20, 60)],
)
def test_views_are_clips_times_crops(call: Call, views: str, num_clips: int, num_views: int) -> None:
    told = told_by(call("score", "runs/1", "--views", views, "--json"))
    assert (told["num_clips"], told["num_videos"], told["num_views"]) == (num_clips, 4, num_views)


def test_views_show_what_they_promise(call: Call, tmp_path: Path) -> None:
    """The middle crop of three is the centre crop, the outer ones are others; one clip is the middle one."""
    from respike.zoo.predictions import load_predictions

    for name, views in (("centre", "1"), ("three", "1x3")):
        assert call("score", "runs/1", "--views", views, "--predictions", tmp_path / name, "--quiet").code == 0
    centre, three = (load_predictions(tmp_path / name)[0] for name in ("centre", "three"))
    assert centre.clips.unique().tolist() == [2]
    left, middle, right = (three.probabilities[three.crops == crop] for crop in range(3))
    assert torch.equal(middle, centre.probabilities)
    assert not torch.equal(left, middle)
    assert not torch.equal(right, middle)


def test_the_crop_is_the_option_or_that_of_training(call: Call, tmp_path: Path) -> None:
    from respike.zoo.predictions import load_predictions

    for name, more in (("whole", []), ("part", ["--eval-crop", "0.5"])):
        arguments = ["score", "runs/1", "--views", "1", *more, "--predictions", tmp_path / name]
        told = told_by(call(*arguments, "--json"))
        assert told["provenance"]["eval_crop"] == (0.5 if more else 1.0)
    whole, part = (load_predictions(tmp_path / name)[0] for name in ("whole", "part"))
    assert not torch.equal(whole.probabilities, part.probabilities)
    assert "centre crop of 0.5 of the short side" in call("score", "--from", tmp_path / "part").out
    write_run(tmp_path / "run", open_shards("shards/bits-split1").spec, eval_crop=0.5)
    told = told_by(call("score", tmp_path / "run", "--data", "shards/bits-split1", "--json"))
    assert told["provenance"]["eval_crop"] == 0.5


def test_more_clips_than_there_are_is_said(call: Call) -> None:
    answer = call("score", "runs/1", "--views", "10x3")
    assert answer.code == 0
    assert (
        "views need 10 clips of a video, the shards hold at most 5; shards prepared with a smaller clip_step"
        in answer.err
    )
    assert "60: at most 10 clips of a video, 3 crops at 32 pixels" in answer.out


@pytest.fixture(scope="session")
def spread(video_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder: uniform shards with one view and with three of a video to evaluate, and a run for both."""
    folder = tmp_path_factory.mktemp("spread")
    for views in (1, 3):
        settings = PrepareConfig(clip_length=8, sampling="uniform", clips_per_video=2, eval_clips=views)
        prepare(make_split(listing_of(video_folder), 1), folder / f"views{views}", settings, num_workers=1)
    write_run(folder / "run", open_shards(folder / "views1").spec)
    return folder


def test_all_views_of_uniform_shards_are_scored(call: Call, spread: Path, tmp_path: Path) -> None:
    from respike.zoo.predictions import load_predictions

    arguments = ["score", spread / "run", "--data", spread / "views3"]
    told = told_by(call(*arguments, "--views", "3x3", "--predictions", tmp_path / "kept", "--json"))
    assert (told["num_clips"], told["num_videos"], told["num_views"]) == (12, 4, 36)
    kept, _, _ = load_predictions(tmp_path / "kept")
    means = [kept.probabilities[kept.videos == video].mean(dim=0) for video in range(4)]
    labels = [int(kept.labels[kept.videos == video][0]) for video in range(4)]
    right = [int(mean.argmax()) == label for mean, label in zip(means, labels, strict=True)]
    assert told["video"]["top1"] == sum(right) / 4
    # the middle one of three views is the single view of the other set
    one = told_by(call("score", spread / "run", "--data", spread / "views1", "--json"))
    middle = told_by(call(*arguments, "--views", "1", "--json"))
    assert [each["loss"] for each in (one, middle)] == [one["loss"]] * 2
    assert one["num_views"] == middle["num_views"] == 4


def test_training_clips_do_not_depend_on_eval_clips(spread: Path) -> None:
    trains = [(spread / f"views{views}/train-000000.tar").read_bytes() for views in (1, 3)]
    assert trains[0] == trains[1]
    assert [len(open_shards(spread / f"views{views}", "train")) for views in (1, 3)] == [16, 16]
    assert [len(open_shards(spread / f"views{views}", "test")) for views in (1, 3)] == [4, 12]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), ["views need 4 clips of a video", "prepared with 3 for test", "eval_clips 4", "views 3x3"]),
        (("--subset", "train", "--force"), ["prepared with 2 for train", "clips_per_video 4", "views 2x3"]),
    ],
)
def test_too_many_views_say_what_to_prepare(
    call: Call, spread: Path, arguments: tuple[str, ...], said: list[str]
) -> None:
    answer = call("score", spread / "run", "--data", spread / "views3", "--views", "4x3", *arguments)
    assert (answer.code, answer.out) == (1, "")
    assert all(each in answer.err for each in said), answer.err


def test_written_predictions_give_the_same_result(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept.safetensors"
    arguments = ["--views", "2x3", "--subset", "train", "--force"]
    first = call("score", "runs/1", *arguments, "--predictions", kept, "--json", "--confusion", tmp_path / "a.png")
    printed = call("score", "runs/1", *arguments, "--per-class")
    monkeypatch.chdir(tmp_path)
    second = call("score", "--from", kept, "--json", "--confusion", "b.png")
    assert told_by(second) == told_by(first)
    assert told_by(second)["forced"] is True
    assert call("score", "--from", kept, "--per-class").out == printed.out
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_several_checkpoints_give_each_and_mean_and_deviation(call: Call) -> None:
    together = told_by(call("score", "runs/1", "runs/2", "runs/3", "--json"))
    alone = [told_by(call("score", f"runs/{split}", "--json")) for split in (1, 2, 3)]
    assert together["runs"] == alone
    shares = [each["video"]["top1"] for each in alone]
    mean = sum(shares) / 3
    assert together["mean"]["video"]["top1"] == pytest.approx(mean)
    deviation = (sum((share - mean) ** 2 for share in shares) / 2) ** 0.5
    assert together["deviation"]["video"]["top1"] == pytest.approx(deviation)
    table = call("score", "runs/1", "runs/2", "runs/3").out
    assert "bits split 2" in table
    assert "deviation" in table


def test_several_kept_predictions_give_the_same_mean(call: Call, tmp_path: Path) -> None:
    runs = ["runs/1", "runs/2"]
    files = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    keeping = [text for file in files for text in ("--predictions", file)]
    reading = [text for file in files for text in ("--from", file)]
    assert told_by(call("score", *runs, *keeping, "--json")) == told_by(call("score", *reading, "--json"))


def test_data_may_be_named_for_each_checkpoint_or_once(call: Call) -> None:
    named = ["--data", "shards/bits-split2", "--data", "shards/bits-split1"]
    told = told_by(call("score", "runs/2", "runs/1", *named, "--json"))
    assert [run["provenance"]["split"] for run in told["runs"]] == [2, 1]
    refused = call("score", "runs/1", "runs/2", *named)
    assert (refused.code, refused.out) == (1, "")
    assert "split is 1 in the checkpoint and 2 in the data" in refused.err
    assert call("score", "runs/1", "runs/2", "runs/3", *named).code == 1


def test_all_are_checked_before_the_first_is_scored(call: Call, work: Path, tmp_path: Path) -> None:
    spec = open_shards(work / "shards/bits-split2").spec
    other = write_run(tmp_path / "other", dataclasses.replace(spec, split=9, fingerprint="0" * 64))
    answer = call("score", "runs/1", other, "--json")
    assert (answer.code, answer.out) == (1, "")
    assert "no data set under shards/ fits" in answer.err
    assert "bits-split2: split is 9 in the checkpoint and 2 in the data" in answer.err


def _changed(spec: DataSpec, **settings: object) -> DataSpec:
    return dataclasses.replace(spec, settings={**spec.settings, **settings})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda spec: dataclasses.replace(spec, dataset="bytes"), "data set is 'bytes'"),
        (lambda spec: dataclasses.replace(spec, split=2), "split is 2"),
        (lambda spec: dataclasses.replace(spec, classes=("jump", "fall")), "class 1 is 'fall'"),
        (lambda spec: dataclasses.replace(spec, classes=("jump", "wave", "fall")), "3 classes and the data 2"),
        (lambda spec: _changed(spec, stride=2), "stride is 2"),
        (lambda spec: _changed(spec, clip_length=16), "clip length is 16"),
        (lambda spec: _changed(spec, frame_stride=2), "frame stride is 2"),
        (lambda spec: _changed(spec, sampling="uniform"), "sampling is 'uniform'"),
        (lambda spec: _changed(spec, threshold=1), "threshold is 1"),
        (lambda spec: _changed(spec, color="rgb"), "color is 'rgb'"),
        (None, "test videos that were trained on: 4 of 4"),
    ],
)
def test_data_that_does_not_fit_is_refused_with_the_reason(
    call: Call, tmp_path: Path, change: Callable[[DataSpec], DataSpec] | None, reason: str
) -> None:
    test = open_shards("shards/bits-split1", "test")
    seen = [] if change else [row.video for row in test.clips]
    run = write_run(tmp_path / "run", change(test.spec) if change else test.spec, seen)
    arguments = ["score", run, "--data", "shards/bits-split1"]
    refused = call(*arguments, "--json")
    assert (refused.code, refused.out) == (1, "")
    error = json.loads(refused.err)
    assert reason in error["error"]
    assert "force" in error["hint"]
    forced = call(*arguments, "--force", "--json")
    if "classes and" in reason:
        # not even force makes three answers fit two classes
        assert (forced.code, forced.out) == (1, "")
        return
    told = told_by(forced)
    assert told["forced"] is True
    assert [reason in each for each in told["provenance"]["overruled"]] == [True]
    printed = call(*arguments, "--force")
    assert "no result to report" in printed.out
    assert f"overruled: {told['provenance']['overruled'][0]}" in printed.out
    assert reason in printed.err


def test_a_mean_over_different_checkpoints_warns(call: Call, tmp_path: Path) -> None:
    model, spec = load_checkpoint("runs/2")
    save_checkpoint(tmp_path / "other/best.safetensors", model, dataclasses.replace(spec, image_size=64))
    answer = call("score", "runs/1", tmp_path / "other")
    assert answer.code == 0
    assert "the mean is over checkpoints that differ: image size is 32, 64" in answer.err


def test_one_checkpoint_is_not_averaged_with_itself(call: Call) -> None:
    answer = call("score", "runs/1", "runs/1")
    assert (answer.code, answer.out) == (1, "")
    assert "are the same weights on the same data" in answer.err


def test_classes_are_listed_the_weakest_first(call: Call) -> None:
    told = told_by(call("score", "runs/1", "--json"))
    out = call("score", "runs/1", "--per-class").out
    lines = out[out.index("classes of") :].splitlines()[2:4]
    weakest = sorted(told["per_class"], key=lambda row: (row["video_top1"], row["class"]))
    assert [line.split()[0] for line in lines] == [row["class"] for row in weakest]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "Missing argument 'CHECKPOINT'"),
        (["runs/1", "--from", "kept"], "leave CHECKPOINT"),
        (["--from", "kept", "--data", "shards/bits-split1"], "leave CHECKPOINT, --data"),
        (["--from", "kept", "--views", "1", "--force"], "leave --views, --force out"),
        (["runs/1", "--views", "1x2"], "1, 3"),
        (["runs/1", "--views", "many"], "10x3"),
        (["runs/1", "runs/2", "--predictions", "one"], "files for --predictions: 1, checkpoints: 2"),
        (["runs/1", "runs/2", "--confusion", "one.png"], "one by one"),
        (["runs/1", "--predictions", "nowhere/kept"], "cannot write nowhere/kept"),
        (["runs/1", "--confusion", "shards"], "cannot write shards"),
    ],
)
def test_wrong_usage_is_refused_before_scoring(call: Call, arguments: list[str], problem: str) -> None:
    answer = call("score", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert problem in answer.err


def test_predictions_that_are_none_are_named(call: Call) -> None:
    answer = call("score", "--from", "runs/1/best.safetensors")
    assert (answer.code, answer.out) == (1, "")
    assert "runs/1/best.safetensors holds no predictions" in answer.err


def test_the_precision_is_asked_for_told_and_kept(call: Call) -> None:
    plain, mixed = (
        told_by(call("score", "runs/1", *more, "--json")) for more in ([], ["--amp", "bf16", "--predictions", "kept"])
    )
    assert [told["provenance"]["amp"] for told in (plain, mixed)] == ["no", "bf16"]
    assert mixed["loss"] != plain["loss"]
    assert mixed["loss"] == pytest.approx(plain["loss"], rel=0.2)
    assert "in mixed precision bf16" in call("score", "--from", "kept").out
    assert "mixed precision" not in call("score", "runs/1").out


def test_a_precision_that_the_device_lacks_is_refused(call: Call) -> None:
    answer = call("score", "nowhere", "--amp", "fp16", "--device", "cpu")
    assert answer.code == 1
    assert "fp16" in answer.err
    assert "bf16" in answer.err


def test_a_mean_over_several_precisions_warns(call: Call, tmp_path: Path) -> None:
    kept = [tmp_path / amp for amp in ("no", "bf16")]
    for number, path in enumerate(kept, start=1):
        call("score", f"runs/{number}", "--amp", path.name, "--predictions", path)
    answer = call("score", "--from", kept[0], "--from", kept[1])
    assert "amp is no, bf16" in answer.err
