"""Views: which clips and squares are looked at."""

from types import SimpleNamespace

import pytest
from respike.common.errors import SettingError
from respike.data.dataset import ClipRow, ShardDataset
from respike.data.loader import Views, parse_views, spread_clips
from respike.data.transforms import centre_view, square_view


def _dataset(**num_clips: int) -> ShardDataset:
    rows = [
        ClipRow(video=video, label=0, group=None, subset="test", clip_index=clip, shard=0, position=clip)
        for video, count in num_clips.items()
        for clip in range(count)
    ]
    return ShardDataset(SimpleNamespace(), rows)


def _chosen(num_stored: int, num_clips: int | None) -> list[int]:
    return [row.clip_index for row in spread_clips(_dataset(a=num_stored), num_clips).clips]


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
    assert _chosen(9, 1) == [4]
    assert _chosen(9, 3) == [1, 4, 7]
    assert _chosen(40, 10) == [2, 6, 10, 14, 18, 22, 26, 30, 34, 38]


@pytest.mark.parametrize(("num_stored", "num_clips"), [(1, 10), (7, 10), (10, 10), (7, None)])
def test_a_video_with_fewer_clips_gives_each_once(num_stored: int, num_clips: int | None) -> None:
    assert _chosen(num_stored, num_clips) == list(range(num_stored))


def test_spread_clips_never_repeat() -> None:
    for num_stored in range(1, 30):
        for num_clips in range(1, 31):
            chosen = _chosen(num_stored, num_clips)
            assert len(set(chosen)) == min(num_stored, num_clips)


def test_each_video_is_spread_separately() -> None:
    rows = spread_clips(_dataset(a=5, b=1, c=3), 1).clips
    assert [(row.video, row.clip_index) for row in rows] == [("a", 2), ("b", 0), ("c", 1)]


@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (61, 95), (64, 64), (65, 65)])
def test_three_squares_cover_the_long_side(height: int, width: int) -> None:
    views = [square_view(height, width, place, 3) for place in range(3)]
    assert views[1] == centre_view(height, width)
    assert (views[0].top, views[0].left) == (0, 0)
    last = views[2]
    # luma that a whole chroma sample does not cover stays out
    assert height - (last.top + last.height) < 2
    assert width - (last.left + last.width) < 2
    assert all(view.top % 2 == view.left % 2 == 0 for view in views)


def test_the_squares_of_a_wide_frame_are_left_centre_right() -> None:
    assert [square_view(240, 320, place, 3).left for place in range(3)] == [0, 40, 80]
