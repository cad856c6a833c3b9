"""Loader: exact epochs, equal ranks, one order for any number of workers, exact resume, views of evaluations."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from respike.common.errors import SettingError
from respike.data import make_loader, open_shards
from respike.data.dataset import ClipRow, ShardDataset
from respike.data.loader import Views, parse_views, spread_clips
from respike.data.transforms import multi_scale_view, square_view, write_view
from respike.types import CountedSource


def seen(loader):
    return [
        (video, int(clip))
        for batch in loader
        for video, clip, counts in zip(batch.video_ids, batch.clip_indices, batch.mask, strict=True)
        if counts
    ]


def make(dataset, **settings):
    defaults = {"batch_size": 3, "training": True, "image_size": 32, "seed": 1}
    return make_loader(dataset, **(defaults | settings))


def test_a_batch_has_the_documented_shapes_and_types(shards):
    dataset = open_shards(shards, "train")
    batch = next(iter(make(dataset)))
    assert batch.keys.shape == (3, 4, 3, 32, 32)
    assert batch.residuals.shape == (3, 4, 3, 3, 32, 32)
    assert (batch.keys.dtype, batch.residuals.dtype, batch.labels.dtype) == (torch.uint8, torch.int16, torch.int64)
    labels = {row.video: row.label for row in dataset.clips}
    assert batch.labels.tolist() == [labels[video] for video in batch.video_ids]


def test_an_epoch_shows_each_clip_at_most_once_and_epochs_differ(shards):
    dataset = open_shards(shards, "train")
    loader = make(dataset)
    epochs = [seen(loader) for _ in range(2)]
    assert all(len(set(epoch)) == len(epoch) == len(loader) * 3 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_set_epoch_repeats_an_epoch(shards):
    loader = make(open_shards(shards, "train"))
    first = seen(loader)
    seen(loader)
    loader.set_epoch(0)
    assert seen(loader) == first


def test_the_number_of_workers_changes_neither_order_nor_pixels(shards):
    dataset = open_shards(shards, "train")
    alone, with_workers = (list(make(dataset, num_workers=workers, epoch_clips=1)) for workers in (0, 2))
    for one, two in zip(alone, with_workers, strict=True):
        assert one.video_ids == two.video_ids
        assert torch.equal(one.keys, two.keys)
        assert torch.equal(one.residuals, two.residuals)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_an_evaluation_counts_each_clip_once_over_all_ranks(shards, world_size):
    dataset = open_shards(shards)
    loaders = [
        make(dataset, training=False, batch_size=4, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    clips = [clip for loader in loaders for clip in seen(loader)]
    assert sorted(clips) == sorted((row.video, row.clip_index) for row in dataset.clips)
    assert len({len(loader) for loader in loaders}) == 1
    assert all(len(batch) == 4 for loader in loaders for batch in loader)


@pytest.mark.parametrize("world_size", [2, 4])
def test_training_ranks_take_equal_steps_and_share_no_clip(shards, world_size):
    dataset = open_shards(shards, "train")
    loaders = [make(dataset, batch_size=2, rank=rank, world_size=world_size) for rank in range(world_size)]
    clips = [seen(loader) for loader in loaders]
    assert len({len(part) for part in clips}) == 1
    assert len({clip for part in clips for clip in part}) == sum(map(len, clips))


def test_the_remainder_that_is_left_out_rotates(shards):
    dataset = open_shards(shards, "train")
    loader = make(dataset, batch_size=15)
    everything = {(row.video, row.clip_index) for row in dataset.clips}
    left_out = [everything - set(seen(loader)) for _ in range(4)]
    assert all(left_out)
    assert len({frozenset(clips) for clips in left_out}) > 1


def test_a_stopped_pass_resumes_at_the_next_batch(shards):
    dataset = open_shards(shards, "train")
    whole = list(make(dataset))
    loader = make(dataset)
    for number, _ in enumerate(loader):
        if number == 1:
            break
    other = make(dataset)
    other.load_state_dict(loader.state_dict())
    rest = list(other)
    assert [batch.video_ids for batch in rest] == [batch.video_ids for batch in whole[2:]]
    assert torch.equal(rest[0].residuals, whole[2].residuals)


def test_a_loader_counts_its_views(shards):
    dataset = open_shards(shards, "test")
    whole = make(dataset, training=False, num_crops=3, world_size=2)
    assert isinstance(whole, CountedSource)
    assert (whole.num_views, whole.is_training) == (3 * len(dataset), False)
    assert make(dataset, batch_size=1).is_training


@pytest.mark.parametrize(("training", "workers"), [(True, 0), (False, 0), (True, 1)])
def test_an_unfinished_pass_costs_the_next_one_nothing(shards, training, workers):
    dataset = open_shards(shards, "train")
    settings = {"training": training, "num_workers": workers}
    whole = list(make(dataset, **settings))
    loader = make(dataset, **settings)
    next(iter(loader))
    for number, _ in enumerate(loader):
        if number == 2:
            break
    again = list(loader)
    assert len(again) == len(loader) == len(whole)
    assert [batch.video_ids for batch in again] == [batch.video_ids for batch in whole]
    assert torch.equal(again[0].residuals, whole[0].residuals)


def test_a_pass_is_resumed_once(shards):
    loader = make(open_shards(shards, "train"))
    loader.load_state_dict({"epoch": 0, "next_batch": 2})
    assert loader.state_dict() == {"epoch": 0, "next_batch": 2}
    next(iter(loader))
    assert loader.state_dict() == {"epoch": 0, "next_batch": 3}
    assert len(list(loader)) == len(loader)
    loader.load_state_dict({"epoch": 0, "next_batch": 2})
    loader.set_epoch(0)
    assert len(list(loader)) == len(loader)


def clips_by_video(epoch):
    by_video = {}
    for video, clip in epoch:
        by_video.setdefault(video, set()).add(clip)
    return by_video


@pytest.fixture(scope="module")
def uneven(shards):
    """Return the training videos, with one clip of some and more of others."""
    dataset = open_shards(shards, "train")
    left = [number for number, row in enumerate(dataset.clips) if row.clip_index < 1 + number // 2 % 3]
    part = dataset.select(left)
    assert len(set(Counter(row.video for row in part.clips).values())) > 1
    return part


@pytest.mark.parametrize("most", [1, 2, 9])
def test_epoch_clips_sets_how_often_a_video_is_shown(uneven, most):
    stored = Counter(row.video for row in uneven.clips)
    wanted = {video: min(most, count) for video, count in stored.items()}
    loader = make(uneven, batch_size=1, epoch_clips=most)
    assert len(loader) == sum(wanted.values())
    epochs = [seen(loader) for _ in range(12)]
    for epoch in epochs:
        assert len(set(epoch)) == len(epoch)
        assert {video: len(clips) for video, clips in clips_by_video(epoch).items()} == wanted
    # drawn again in each epoch: after a dozen every stored clip was shown, with the videos in other orders
    assert set().union(*epochs) == {(row.video, row.clip_index) for row in uneven.clips}
    assert len({tuple(video for video, _ in epoch) for epoch in epochs}) > 6


def test_the_clips_of_an_epoch_depend_on_seed_and_epoch_only(uneven):
    whole = seen(make(uneven, batch_size=1, epoch_clips=1))
    assert whole != seen(make(uneven, batch_size=1, epoch_clips=1, seed=2))
    ranks = [make(uneven, batch_size=2, epoch_clips=1, rank=rank, world_size=2) for rank in range(2)]
    assert {len(loader) for loader in ranks} == {len(whole) // 4}
    parts = [seen(loader) for loader in ranks]
    assert sorted(parts[0] + parts[1]) == sorted(whole[: 4 * len(ranks[0])])
    rest = make(uneven, batch_size=1, epoch_clips=1)
    rest.load_state_dict({"epoch": 0, "next_batch": 3})
    assert seen(rest) == whole[3:]


def test_a_clip_is_cropped_the_same_in_every_selection(uneven):
    batches = {(batch.video_ids[0], int(batch.clip_indices)): batch for batch in make(uneven, batch_size=1)}
    for batch in make(uneven, batch_size=1, epoch_clips=1):
        assert torch.equal(batch.keys, batches[batch.video_ids[0], int(batch.clip_indices)].keys)


@pytest.mark.parametrize("wrong", [0, -1, "some", 1.5])
def test_an_invalid_epoch_clips_is_named(shards, wrong):
    with pytest.raises(SettingError, match=f"epoch_clips is {wrong!r}"):
        make(open_shards(shards, "train"), epoch_clips=wrong)


def test_an_evaluation_draws_no_clips(shards):
    with pytest.raises(SettingError, match="epoch_clips is 1 in an evaluation"):
        make(open_shards(shards, "test"), training=False, epoch_clips=1)


def test_a_step_larger_than_an_epoch_is_an_error(uneven):
    num_videos = len({row.video for row in uneven.clips})
    with pytest.raises(SettingError, match=f"{num_videos} clips to train on, one step takes {num_videos + 1}"):
        make(uneven, batch_size=num_videos + 1, epoch_clips=1)


def test_crops_come_from_one_read_and_equal_single_crops(shards, monkeypatch):
    """Compare with the definition: each square of each clip, read again and cropped by itself."""
    dataset = open_shards(shards, "test")
    loader = make(dataset, training=False, batch_size=4, image_size=24, num_crops=3)
    read = []
    plain = type(dataset).__getitem__
    monkeypatch.setattr(type(dataset), "__getitem__", lambda self, number: read.append(number) or plain(self, number))
    batches = list(loader)
    assert read == [*range(len(dataset)), *[0] * (-len(dataset) % 4)]
    assert len(batches) == len(loader) == 3 * -(-len(dataset) // 4)
    assert [batch.crop for batch in batches] == [0, 1, 2] * (len(batches) // 3)
    keys, residuals = np.empty((4, 3, 24, 24), np.uint8), np.empty((4, 3, 3, 24, 24), np.int16)
    for number, batch in enumerate(batches):
        for place, counts in enumerate(batch.mask.tolist()):
            clip = plain(dataset, number // 3 * 4 + place if counts else 0)
            write_view(clip, square_view(48, 64, batch.crop, 3), keys, residuals)
            np.testing.assert_array_equal(batch.keys[place].numpy(), keys)
            np.testing.assert_array_equal(batch.residuals[place].numpy(), residuals)
    assert not torch.equal(batches[0].keys, batches[2].keys)


def test_a_pass_with_crops_resumes_between_two_crops(shards):
    dataset = open_shards(shards, "test")
    settings = {"training": False, "batch_size": 2, "num_crops": 3}
    whole = list(make(dataset, **settings))
    for num_seen in range(len(whole)):
        loader = make(dataset, **settings)
        loader.load_state_dict({"epoch": 0, "next_batch": num_seen})
        rest = list(loader)
        assert [(batch.video_ids, batch.crop) for batch in rest] == [
            (batch.video_ids, batch.crop) for batch in whole[num_seen:]
        ]
        assert torch.equal(rest[0].residuals, whole[num_seen].residuals)
    assert loader.state_dict() == {"epoch": 1, "next_batch": 0}


def test_multi_scale_crops_cut_keys_and_residuals_alike(shards):
    """Compare with the definition: each clip cropped by the view that its seed, epoch and number draw."""
    dataset = open_shards(shards, "train")
    numbers = {(row.video, row.clip_index): number for number, row in enumerate(dataset.clips)}
    keys, residuals = np.empty((4, 3, 32, 32), np.uint8), np.empty((4, 3, 3, 32, 32), np.int16)
    loader = make(dataset, crop="multi-scale", crop_sides=(1.0, 0.5))
    views = set()
    for batch in loader:
        for place, row in enumerate(zip(batch.video_ids, batch.clip_indices.tolist(), strict=True)):
            generator = np.random.default_rng([1, 0, numbers[row]])
            view = multi_scale_view(48, 64, generator, flip=True, sides=(1.0, 0.5))
            write_view(dataset[numbers[row]], view, keys, residuals)
            np.testing.assert_array_equal(batch.keys[place].numpy(), keys)
            np.testing.assert_array_equal(batch.residuals[place].numpy(), residuals)
            views.add((view.height, view.width))
    assert views <= {(48, 48), (48, 24), (24, 48), (24, 24)}
    assert len(views) > 2


def test_without_augmentation_a_clip_comes_as_it_was_stored(shards):
    dataset = open_shards(shards, "test")
    # 64 x 48 as stored: a centred square of 48
    batch = next(iter(make(dataset, training=False, batch_size=1, image_size=48)))
    clip = dataset[0]
    np.testing.assert_array_equal(batch.keys[0].numpy(), clip.keys[..., :, 8:56])
    luma = clip.residuals()[:, :, 0, :, 8:56]
    np.testing.assert_array_equal(batch.residuals[0, :, :, 0].numpy(), luma)


def test_too_few_clips_for_a_step_are_an_error(shards):
    with pytest.raises(SettingError, match="one step takes 64"):
        make(open_shards(shards, "train"), batch_size=64)


def fake_dataset(**num_clips: int) -> ShardDataset:
    rows = [
        ClipRow(video=video, label=0, group=None, subset="test", clip_index=clip, shard=0, position=clip)
        for video, count in num_clips.items()
        for clip in range(count)
    ]
    return ShardDataset(SimpleNamespace(), rows)


def chosen_clips(num_stored: int, num_clips: int | None) -> list[int]:
    return [row.clip_index for row in spread_clips(fake_dataset(a=num_stored), num_clips).clips]


@pytest.mark.parametrize(
    ("text", "views"),
    [
        ("1", Views(clips=1)),
        ("3", Views(clips=3)),
        ("10x3", Views(clips=10, crops=3)),
        ("10×3", Views(clips=10, crops=3)),
        ("all", Views()),
        ("allx3", Views(crops=3)),
    ],
)
def test_views_are_clips_times_crops(text: str, views: Views) -> None:
    assert parse_views(text) == views
    assert parse_views(str(views)) == views


@pytest.mark.parametrize("text", ["", "x3", "10x", "3x3x3", "many", "-1", "0", "1x2", "1x0"])
def test_other_views_are_refused(text: str) -> None:
    with pytest.raises(SettingError):
        parse_views(text)


def test_spread_clips_are_the_middles_of_equal_parts() -> None:
    assert chosen_clips(9, 1) == [4]
    assert chosen_clips(9, 3) == [1, 4, 7]
    assert chosen_clips(40, 10) == [2, 6, 10, 14, 18, 22, 26, 30, 34, 38]


@pytest.mark.parametrize(("num_stored", "num_clips"), [(1, 10), (7, 10), (10, 10), (7, None)])
def test_a_video_with_fewer_clips_gives_each_once(num_stored: int, num_clips: int | None) -> None:
    assert chosen_clips(num_stored, num_clips) == list(range(num_stored))


def test_spread_clips_never_repeat() -> None:
    for num_stored in range(1, 30):
        for num_clips in range(1, 31):
            chosen = chosen_clips(num_stored, num_clips)
            assert len(set(chosen)) == min(num_stored, num_clips)


def test_each_video_is_spread_separately() -> None:
    rows = spread_clips(fake_dataset(a=5, b=1, c=3), 1).clips
    assert [(row.video, row.clip_index) for row in rows] == [("a", 2), ("b", 0), ("c", 1)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"crop": "centre"}, "crop is 'centre'"),
        ({"crop_sides": ()}, "crop_sides is"),
        ({"crop_sides": (1.1,)}, "crop_sides is"),
        ({"crop_sides": (0.66, 1.0, 0.75)}, "crop_sides is"),
        ({"eval_crop": 0.0}, "eval_crop is 0"),
        ({"eval_crop": 1.1}, "eval_crop is 1.1"),
        ({"num_crops": 0}, "num_crops is 0"),
        ({"num_crops": 3}, "num_crops is 3 in training"),
        ({"rank": 2}, "rank is 2 of 1"),
    ],
)
def test_invalid_loader_settings_are_named(change, said):
    with pytest.raises(SettingError, match=said):
        make(fake_dataset(a=9), **change)
