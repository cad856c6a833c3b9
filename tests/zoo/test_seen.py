"""Seen videos: found again by their hashes."""

from respike.zoo.compatibility import find_seen, hash_video


def test_a_seen_video_is_found_once() -> None:
    hashes = [hash_video(f"class/v_{number}.avi") for number in range(100)]
    assert find_seen(hashes, ["class/v_7.avi", "other/v_7.avi", "class/v_7.avi"]) == ["class/v_7.avi"]


def test_hashes_of_many_videos_are_distinct_and_short() -> None:
    hashes = {hash_video(str(number)) for number in range(20_000)}
    assert len(hashes) == 20_000
    assert {len(value) for value in hashes} == {12}


def test_a_name_that_is_no_utf8_has_a_hash() -> None:
    assert hash_video("caf\udce9.avi") != hash_video("café.avi")
