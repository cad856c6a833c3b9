"""Odd videos: what is stored of an unusual file is what a current ffmpeg shows of it."""

import struct
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest
from respike.common.errors import UnreadableVideoError
from respike.data.clip_encoder import stream_clips
from respike.data.container import find_lost_packets
from respike.data.datasets.common import is_video
from respike.data.executors.base import run_serially
from respike.data.index import read_index, read_skipped
from respike.data.preparation import prepare
from respike.data.prepare_config import PrepareConfig
from respike.data.shard import decode_info, encode_info
from respike.data.verification import verify
from respike.data.video_check import check
from respike.data.video_reader import Decoding, check_header, probe
from respike.data.video_writer import ffmpeg_path, write_video

from tests.conftest import REAL_CLIPS, listing_of, moving_square

FRAMES = moving_square(24, width=96, height=64)


def ffmpeg(*arguments):
    subprocess.run([ffmpeg_path(), "-loglevel", "error", "-y", *map(str, arguments)], check=True)


def decode_all(path, color="rgb", **settings):
    return list(Decoding(path, color=color, short_side=256, **settings).frames())


def clips_of(path, **settings):
    """Return the clips that `prepare` would store of a video."""

    class Taker(list):
        take, restart = list.append, list.clear

    taker = Taker()
    stream_clips(path, PrepareConfig(**settings), taker)
    return taker


def shown_by_ffmpeg(path):
    """Return the frames that the ffmpeg program shows of a video: uint8 RGB [T, H, W, 3]."""
    first = decode_all(path)[0].planes[0].shape
    command = [ffmpeg_path(), "-loglevel", "error", "-i", path, "-fps_mode", "passthrough"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    shown = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(shown, np.uint8).reshape(-1, *first, 3)


# streams


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    """A video, a small preview, a picture and a sound, to be put together."""
    folder = tmp_path_factory.mktemp("pieces")
    write_video(folder / "video.mp4", iter(FRAMES), options={"crf": 18})
    write_video(folder / "preview.mp4", iter(moving_square(6, width=64, height=48)), frames_per_second=5)
    ffmpeg("-f", "lavfi", "-i", "color=red:s=300x300", "-frames:v", 1, folder / "cover.jpg")
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", folder / "sound.m4a")
    return folder


def sizes_of(path):
    check_header(path)
    info = probe(path)
    frames = decode_all(path)
    height, width = frames[0].planes[0].shape
    assert (info.width, info.height, info.num_packets) == (width, height, len(frames))
    return len(frames), width, height


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_cover_before_the_video_is_not_the_video(pieces, tmp_path, suffix):
    path = tmp_path / f"film.{suffix}"
    order = ["-i", pieces / "cover.jpg", "-i", pieces / "video.mp4", "-map", 0, "-map", 1]
    ffmpeg(*order, "-c", "copy", "-disposition:v:0", "attached_pic", path)
    assert sizes_of(path) == (24, 96, 64)


def test_a_song_with_a_cover_is_no_video(pieces, tmp_path):
    path = tmp_path / "song.mp4"
    order = ["-i", pieces / "sound.m4a", "-i", pieces / "cover.jpg", "-map", 0, "-map", 1]
    ffmpeg(*order, "-c", "copy", "-disposition:v:0", "attached_pic", path)
    for read in (probe, check_header, decode_all):
        with pytest.raises(UnreadableVideoError, match="only an attached picture"):
            read(path)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("default", 0), (6, 64, 48)),
        ((0, "default"), (24, 96, 64)),
        # of equals the larger one, as ffmpeg chooses
        ((0, 0), (24, 96, 64)),
        (("default", "default"), (24, 96, 64)),
    ],
)
def test_the_stream_flagged_default_is_chosen(pieces, tmp_path, flags, expected):
    path = tmp_path / "two.mkv"
    order = ["-i", pieces / "preview.mp4", "-i", pieces / "video.mp4", "-map", "0:v", "-map", "1:v", "-c", "copy"]
    ffmpeg(*order, "-disposition:v:0", flags[0], "-disposition:v:1", flags[1], path)
    assert sizes_of(path) == expected


# orientation

# the display matrix of each orientation: the numbers a, b, c, d, with y pointing down
MATRICES = {
    "as coded": (1, 0, 0, 1),
    "turned left": (0, -1, 1, 0),
    "turned half": (-1, 0, 0, -1),
    "turned right": (0, 1, -1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed across": (0, -1, -1, 0),
}


def with_matrix(path, out, numbers):
    """Write an MP4 again with another matrix in the header of its video track."""
    content = path.read_bytes()
    a, b, c, d = (number << 16 for number in numbers)
    matrices = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30), (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    usual, wanted = (b"".join(each.to_bytes(4, "big", signed=True) for each in matrix) for matrix in matrices)
    start = content.index(b"tkhd")
    assert usual in content[start : start + 100]
    out.write_bytes(content[:start] + content[start:].replace(usual, wanted, 1))
    return out


@pytest.mark.parametrize("name", MATRICES)
def test_a_display_matrix_is_applied_as_ffmpeg_does(pieces, tmp_path, name):
    path = with_matrix(pieces / "video.mp4", tmp_path / "turned.mp4", MATRICES[name])
    frames = decode_all(path)
    decoded = np.stack([np.stack(frame.planes, -1) for frame in frames])
    shown = shown_by_ffmpeg(path).astype(int)
    assert decoded.shape == shown.shape
    # the two scalers round colours differently, and a mirrored picture differs by far more
    assert np.abs(decoded - shown).mean() < 4
    # the recorded facts lead from the coded to the stored pictures
    coded = np.stack(decode_all(pieces / "video.mp4")[0].planes, -1)
    source = coded[:, ::-1] if frames[0].mirrored else coded
    np.testing.assert_array_equal(decoded[0], np.rot90(source, frames[0].rotation_degrees // 90))


@pytest.mark.parametrize("color", ["ycc", "rgb"])
def test_a_mirrored_video_is_recorded_in_its_sample(pieces, tmp_path, color):
    path = with_matrix(pieces / "video.mp4", tmp_path / "mirrored.mp4", MATRICES["upside down"])
    info = clips_of(path, color=color)[0].info
    assert (info.mirrored, info.rotation_degrees) == (True, 180)
    assert b"mirrored" in encode_info(info)
    assert b"mirrored" not in encode_info(clips_of(pieces / "video.mp4")[0].info)
    assert decode_info(encode_info(info)) == info


def test_a_slanted_display_matrix_counts_as_the_nearest_turn(pieces, tmp_path):
    path = tmp_path / "slanted.mp4"
    ffmpeg("-display_rotation", 80, "-i", pieces / "video.mp4", "-c", "copy", path)
    assert decode_all(path)[0].rotation_degrees == 90


# times


def even(num_frames, frames_per_second=25):
    return pytest.approx([number / frames_per_second for number in range(num_frames)], abs=1e-6)


@pytest.fixture
def stream_without_times(tmp_path):
    """An H.264 elementary stream under a video's name."""
    write_video(tmp_path / "raw.h264", iter(FRAMES))
    return (tmp_path / "raw.h264").rename(tmp_path / "raw.mp4")


def with_few_times(path, out, every):
    """Write an MPEG-TS again, with the time of each `every`-th frame only."""
    content = bytearray(path.read_bytes())
    num_frames = 0
    for at in range(0, len(content), 188):
        start = content.find(b"\0\0\1\xe0", at, at + 188)
        if content[at + 1] & 0x40 and start > 0:
            if num_frames % every:
                content[start + 7] &= 0x3F
                length = content[start + 8]
                content[start + 9 : start + 9 + length] = b"\xff" * length
            num_frames += 1
    out.write_bytes(content)
    return out


def test_frames_without_times_are_counted(stream_without_times):
    frames = decode_all(stream_without_times)
    assert [frame.time_seconds for frame in frames] == even(24)
    info = probe(stream_without_times)
    assert (info.seconds, info.variable_frame_rate) == (pytest.approx(24 / 25), False)
    sample = clips_of(stream_without_times)[0].info
    assert sample.counted_times
    assert sample.times_seconds == even(16)
    assert b'"counted_times":true' in encode_info(sample)


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("every", [5, 12, 1000])
def test_missing_times_are_filled_in(tmp_path, every, b_frames):
    source = tmp_path / "source.ts"
    write_video(source, iter(FRAMES), options={"bf": b_frames})
    path = with_few_times(source, tmp_path / "few.ts", every)
    times = [frame.time_seconds for frame in decode_all(path)]
    if not b_frames:
        assert times == even(24)
        assert clips_of(path)[0].info.counted_times
    assert len(times) == 24
    assert min(np.diff(times)) > 0
    assert not clips_of(source)[0].info.counted_times


def test_times_that_run_backwards_are_counted(tmp_path):
    one, path = tmp_path / "one.ts", tmp_path / "twice.ts"
    write_video(one, iter(FRAMES), codec="mpeg2video")
    # counters of MPEG-TS are not checked in a program stream
    ffmpeg("-i", one, "-c", "copy", tmp_path / "one.mpg")
    path = tmp_path / "twice.mpg"
    path.write_bytes((tmp_path / "one.mpg").read_bytes() * 2)
    assert [frame.time_seconds for frame in decode_all(path)] == even(48)
    assert probe(path).seconds == pytest.approx(48 / 25)
    assert [clip.info.counted_times for clip in clips_of(path)] == [False, True, True]


def test_empty_chunks_of_an_avi_take_time(tmp_path):
    whole, path = tmp_path / "whole.avi", tmp_path / "vfr.avi"
    write_video(whole, iter(FRAMES), codec="mpeg4")
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts = packet.dts = packet.dts + (10 if packet.dts >= 8 else 0)
                packet.stream = stream
                out.mux(packet)
    times = [number / 25 for number in (*range(8), *range(18, 34))]
    assert [frame.time_seconds for frame in decode_all(path)] == pytest.approx(times)
    assert probe(path).variable_frame_rate
    assert probe(path).seconds == pytest.approx(34 / 25)
    assert not clips_of(path)[0].info.counted_times


# the begin of a stream


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("h264.ts", "libx264", {}),
        ("hevc.ts", "libx265", {"x265-params": "log-level=none:keyint=8:min-keyint=8"}),
        ("hevc.mkv", "libx265", {"x265-params": "log-level=none:keyint=8:min-keyint=8"}),
        ("mpeg2.ts", "mpeg2video", {}),
        ("mpeg4.ts", "mpeg4", {}),
        ("mpeg4.avi", "mpeg4", {}),
        ("vp8.webm", "libvpx", {}),
        ("vp9.webm", "libvpx-vp9", {"cpu-used": 8}),
        ("wmv2.wmv", "wmv2", {}),
        ("flv.flv", "flv", {}),
    ],
)
def test_a_stream_begins_with_its_first_key_frame(tmp_path, name, codec, options):
    whole, path = tmp_path / name, tmp_path / f"later-{name}"
    write_video(whole, iter(FRAMES), codec=codec, options={"g": 8, **options})
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size][3:]
        for packet in packets:
            packet.stream = stream
            out.mux(packet)
    frames = decode_all(path)
    assert [frame.time_seconds for frame in frames] == even(16)
    # pictures that need one before the key frame are not shown either
    assert 16 <= probe(path).num_packets <= 21
    expected = decode_all(whole)[8:]
    for frame, other in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.planes[0], other.planes[0])
    assert len(clips_of(path)) == 1


def test_a_stream_without_key_frames_is_decoded_whole(tmp_path):
    whole, path = tmp_path / "whole.mkv", tmp_path / "none.mkv"
    write_video(whole, iter(FRAMES), codec="mpeg4", options={"g": 100})
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in [packet for packet in source.demux(video=0) if packet.size][1:]:
            packet.stream = stream
            out.mux(packet)
    assert (len(decode_all(path)), probe(path).num_packets) == (23, 23)


# joined and edited files


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """The packets of an MPEG-TS of four segments of twelve frames: bytes of 188 each."""
    path = tmp_path_factory.mktemp("recording") / "video.ts"
    # with noise, each frame takes many packets
    noise = np.random.default_rng(0).integers(0, 80, (48, 64, 96, 3), dtype=np.uint8)
    write_video(path, iter(moving_square(48, width=96, height=64) // 2 + noise), options={"g": 12, "sc_threshold": 0})
    content = path.read_bytes()
    return [content[at : at + 188] for at in range(0, len(content), 188)]


def is_of_video(packet):
    return (packet[1] & 0x1F) << 8 | packet[2] == 0x100


def starts_of_segments(packets):
    """The numbers of the packets that begin a key frame: those with the flag of random access."""
    flagged = [bool(packet[3] & 0x20 and packet[4] and packet[5] & 0x40) for packet in packets]
    return [at for at, packet in enumerate(packets) if flagged[at] and packet[1] & 0x40 and is_of_video(packet)]


def write_packets(path, packets):
    path.write_bytes(b"".join(packets))
    return path


def fault_of(path):
    """What is wrong with a video, as `check --full` and `prepare` find it; None if nothing is."""
    try:
        if (fault := probe(path).fault) is not None:
            return fault
        decode_all(path)
    except UnreadableVideoError as error:
        return error.reason
    return None


@pytest.mark.parametrize("codec", ["libx264", "libx265", "mpeg2video"])
def test_joined_recordings_are_decoded(tmp_path, codec):
    one, path = tmp_path / "one.ts", tmp_path / "twice.ts"
    write_video(one, iter(FRAMES), codec=codec, options={"g": 12, "bf": 0})
    path.write_bytes(one.read_bytes() * 2)
    assert fault_of(path) is None
    assert [frame.time_seconds for frame in decode_all(path)] == even(48)


@pytest.mark.parametrize("bytes_before", [0, 4])
def test_a_recording_without_one_segment_is_decoded(recording, tmp_path, bytes_before):
    _, second, third, _ = starts_of_segments(recording)
    packets = [bytes(bytes_before) + packet for packet in [*recording[:second], *recording[third:]]]
    path = write_packets(tmp_path / "lost.ts", packets)
    assert fault_of(path) is None
    assert len(decode_all(path)) == 36
    assert len(clips_of(path)) == 2


def test_a_lost_part_of_a_frame_is_found(recording, tmp_path):
    generator = np.random.default_rng(0)
    numbers = [at for at, packet in enumerate(recording) if is_of_video(packet)]
    for _ in range(40):
        first = int(generator.integers(20, len(numbers) - 12))
        lost = set(numbers[first : first + int(generator.integers(1, 12))])
        path = write_packets(tmp_path / "lost.ts", [each for at, each in enumerate(recording) if at not in lost])
        assert fault_of(path) is not None


def test_a_lost_end_of_a_frame_before_a_segment_is_found(recording, tmp_path):
    _, second, third, _ = starts_of_segments(recording)
    before = [at for at in range(second) if is_of_video(recording[at])]
    last_frame = [at for at in before if recording[at][1] & 0x40][-1]
    num_packets = sum(at > last_frame for at in before)
    assert num_packets > 5
    for num_lost in range(1, num_packets):
        kept = [recording[at] for at in range(second) if at not in before[-num_lost:]]
        assert fault_of(write_packets(tmp_path / "lost.ts", [*kept, *recording[third:]])) is not None


def test_what_an_mpeg_ts_lost_is_told(recording, tmp_path):
    _, second, third, fourth = starts_of_segments(recording)
    path = tmp_path / "video.ts"

    def lost(packets):
        return find_lost_packets(write_packets(path, packets), 0x100)

    assert lost(recording) is None
    assert lost([*recording[:second], *recording[third:]]) is None
    assert lost([*recording[: second + 5], *recording[second + 6 :]]) == "packets are missing"
    assert lost([*recording[: second + 5], *recording[third:fourth], *recording[fourth + 3 :]]) == "packets are missing"
    marked = bytes([0x47, recording[20][1] | 0x80]) + recording[20][2:]
    assert "marked" in lost([*recording[:20], marked, *recording[21:]])
    assert "aligned" in lost([*recording[:20], b"xyz", *recording[20:]])


def flv_that_says(path, name, number):
    """Change a number in the metadata of an FLV."""
    content = path.read_bytes()
    at = content.index(name) + len(name) + 1
    path.write_bytes(content[:at] + struct.pack(">d", number) + content[at + 8 :])


def test_an_flv_with_a_wrong_size_in_its_metadata_is_whole(tmp_path):
    path = tmp_path / "video.flv"
    write_video(path, iter(FRAMES), codec="flv")
    flv_that_says(path, b"filesize", path.stat().st_size + 5000)
    assert fault_of(path) is None
    assert len(decode_all(path)) == 24
    # cut between two frames: then the duration does not fit either
    flv_that_says(path, b"duration", 5.0)
    assert "was cut" in fault_of(path)


# pixels that are not square


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A folder with a video of 96 x 64 pixels of 64:45, and one of square pixels."""
    folder = tmp_path_factory.mktemp("wide") / "root"
    (folder / "a").mkdir(parents=True)
    write_video(folder / "a" / "wide.mp4", iter(FRAMES), options={"vf": "setsar=64/45"})
    write_video(folder / "a" / "square.mp4", iter(FRAMES))
    return folder


def test_pixels_that_are_not_square_are_recorded(wide):
    path = wide / "a" / "wide.mp4"
    assert probe(path).sample_aspect_ratio == Fraction(64, 45)
    (clip,) = clips_of(path)
    assert clip.keys.shape[-2:] == (64, 96)
    assert clip.info.sample_aspect_ratio == "64:45"
    assert decode_info(encode_info(clip.info)) == clip.info
    assert b"sample_aspect_ratio" not in encode_info(clips_of(wide / "a" / "square.mp4")[0].info)


@pytest.mark.parametrize("color", ["ycc", "rgb"])
@pytest.mark.parametrize(("short_side", "size"), [(256, (64, 137)), (32, (32, 68))])
def test_square_pixels_scales_the_width(wide, color, short_side, size):
    (clip,) = clips_of(wide / "a" / "wide.mp4", square_pixels=True, color=color, short_side=short_side)
    assert clip.keys.shape[-2:] == size
    assert (clip.info.width, clip.info.height, clip.info.sample_aspect_ratio) == (96, 64, "64:45")


def test_square_pixels_changes_no_other_video(wide):
    path = wide / "a" / "square.mp4"
    for one, other in zip(clips_of(path), clips_of(path, square_pixels=True), strict=True):
        np.testing.assert_array_equal(one.keys, other.keys)


def test_a_turned_video_is_scaled_along_its_coded_width(wide, tmp_path):
    path = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", 90, "-i", wide / "a" / "wide.mp4", "-c", "copy", path)
    assert clips_of(path, square_pixels=True)[0].keys.shape[-2:] == (137, 64)


def test_a_set_with_square_pixels_records_the_setting_and_verifies(wide, tmp_path):
    for square_pixels in (False, True):
        out = tmp_path / str(square_pixels)
        prepare(listing_of(wide), out, PrepareConfig(square_pixels=square_pixels), executor=run_serially)
        assert read_index(out).spec.settings.get("square_pixels", False) == square_pixels
        assert ("square_pixels" in (out / "dataset.json").read_text()) == square_pixels
        assert {row.video: row.sample_aspect_ratio for row in read_index(out).videos} == {
            "a/wide.mp4": "64:45",
            "a/square.mp4": "1:1",
        }
        assert not verify(out).faults


def test_an_extreme_aspect_ratio_is_ignored(tmp_path):
    path = tmp_path / "extreme.mp4"
    write_video(path, iter(FRAMES), options={"vf": "setsar=50/1"})
    assert clips_of(path, square_pixels=True)[0].keys.shape[-2:] == (64, 96)


# suffixes


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mts", {}),
        ("m2ts", {}),
        ("m2t", {}),
        ("f4v", {}),
        ("3gp", {"vcodec": "mpeg4"}),
        ("3g2", {"vcodec": "mpeg4"}),
        ("qt", {"f": "mov"}),
        ("ogv", {"vcodec": "libtheora"}),
        ("vob", {"vcodec": "mpeg2video"}),
        ("mpe", {"vcodec": "mpeg2video", "f": "mpeg"}),
        ("m2v", {"vcodec": "mpeg2video"}),
        ("mxf", {"vcodec": "mpeg2video"}),
        ("asf", {"vcodec": "wmv2"}),
        ("divx", {"vcodec": "mpeg4", "f": "avi"}),
        ("rm", {"vcodec": "rv20"}),
        ("gif", {"vcodec": "gif", "pix_fmt": "pal8"}),
        ("nut", {}),
        ("y4m", {"vcodec": "rawvideo"}),
        ("h264", {}),
        ("hevc", {"vcodec": "libx265", "x265-params": "log-level=none"}),
    ],
)
def test_videos_of_less_usual_suffixes_are_prepared(tmp_path, suffix, options):
    path = tmp_path / f"video.{suffix}"
    source = tmp_path / "source.mkv"
    write_video(source, iter(FRAMES), codec="ffv1")
    arguments = {"vcodec": "libx264", "pix_fmt": "yuv420p", **options}
    ffmpeg("-i", source, *(part for name, value in arguments.items() for part in (f"-{name}", value)), path)
    assert is_video(path.name)
    assert fault_of(path) is None
    (clip,) = clips_of(path)
    assert clip.info.times_seconds == pytest.approx([number / 25 for number in range(16)], abs=0.002)
    assert np.abs(clip.to_frames()[:, :, 10:22].astype(int) - FRAMES[:16, 10:22].transpose(0, 3, 1, 2)).mean() < 25


# real files of each kind, shared between projects

CASES = REAL_CLIPS.parent / "cases"
# frames, width and height as stored, time of the last frame; None is skipped
EXPECTED = {
    "cat_same.ts": (50, 160, 120, 1.96),
    "cover.wmv": (30, 160, 120, 1.16),
    "crop.mkv": (30, 160, 120, 1.16),
    "flvsize.flv": (30, 160, 120, 1.16),
    "hflip.mp4": (30, 160, 120, 1.16),
    "mid_hevc.ts": (75, 160, 120, 2.96),
    "nopts_nob.ts": (50, 160, 120, 1.96),
    "rawh264.mp4": (50, 160, 120, 1.96),
    "sar.mp4": (15, 160, 120, 0.56),
    "song.mp4": None,
    "two_low_first.mkv": (30, 160, 120, 1.16),
    "vflip.mp4": (30, 160, 120, 1.16),
    "vfr.avi": (24, 160, 120, 1.96),
}
needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason="the shared odd videos are missing")


@needs_cases
@pytest.mark.parametrize("name", [name for name, expected in EXPECTED.items() if expected])
def test_a_shared_odd_video_is_read_as_ffmpeg_shows_it(name):
    num_frames, width, height, last = EXPECTED[name]
    frames = decode_all(CASES / name)
    assert {frame.planes[0].shape for frame in frames} == {(height, width)}
    times = [frame.time_seconds for frame in frames]
    assert (len(frames), times[0], times[-1]) == (num_frames, 0, pytest.approx(last, abs=1e-3))
    assert min(np.diff(times)) > 0
    # ffmpeg applies the cropping of a container
    if name != "crop.mkv":
        decoded = np.stack([np.stack(frame.planes, -1) for frame in frames]).astype(int)
        assert np.abs(decoded - shown_by_ffmpeg(CASES / name)).mean() < 2


@needs_cases
def test_a_full_check_and_prepare_agree_on_the_shared_odd_videos(tmp_path):
    root, out = tmp_path / "root", tmp_path / "out"
    (root / "a").mkdir(parents=True)
    files = [path for path in CASES.iterdir() if is_video(path.name)]
    for path in files:
        (root / "a" / path.name).symlink_to(path)
    listing = listing_of(root)
    report = check(listing, full=True)
    prepare(listing, out, PrepareConfig(clip_length=4), executor=run_serially)
    found = [(fault.video, fault.stage, fault.reason) for fault in report.faults]
    assert sorted(found) == sorted((row.video, row.stage, row.reason) for row in read_skipped(read_index(out)))
    assert {path.name for path in files} == set(EXPECTED)
    assert [video for video, _, _ in found] == ["a/song.mp4"]
    rows = {row.video.removeprefix("a/"): row for row in read_index(out).videos}
    assert {name: row.num_clips for name, row in rows.items()} == {
        name: expected[0] // 4 for name, expected in EXPECTED.items() if expected
    }
    assert {name for name, row in rows.items() if row.sample_aspect_ratio != "1:1"} == {"sar.mp4"}
    assert not verify(out).faults


@needs_cases
def test_the_shared_video_of_wide_pixels_is_scaled_on_request():
    (clip,) = clips_of(CASES / "sar.mp4", square_pixels=True)
    assert clip.keys.shape[-2:] == (120, 228)
