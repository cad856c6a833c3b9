"""Codecs: all usual codecs, and unusual depths, sizes, lengths and rotations are decoded right."""

import dataclasses
import subprocess

import av
import numpy as np
import pytest
from respike.common.errors import UnreadableVideoError
from respike.data import clip_encoder
from respike.data.plan import plan_shards
from respike.data.prepare_config import PrepareConfig
from respike.data.shard import ShardReader, decode_members
from respike.data.shard_worker import build_shard
from respike.data.video_reader import Decoding, probe
from respike.data.video_writer import ffmpeg_path, write_video
from respike.types import VideoListing, VideoRef

from tests.conftest import moving_square

FRAMES = moving_square(20, width=96, height=64)


def decode_all(path, color="rgb"):
    return list(Decoding(path, color=color, short_side=256).frames())


def build(tmp_path, path, **settings):
    """Return the clips of one video as a shard holds them, or raise the reason why it was skipped."""
    video = VideoRef(video_id="a/b", path=path, label=0, class_name="a", subset="train")
    listing = VideoListing(dataset="folder", split=None, evaluation_subset="test", classes=("a",), videos=(video,))
    out = tmp_path / "out"
    (out / ".respike" / "done").mkdir(parents=True, exist_ok=True)
    (task,) = plan_shards(listing, out, PrepareConfig(**settings))
    mark = build_shard(task, lambda note: None).wait()
    if mark["skipped"]:
        raise UnreadableVideoError(mark["skipped"][0]["stage"], mark["skipped"][0]["reason"])
    reader = ShardReader(task.path)
    return [decode_members(key, reader.members(number)) for number, key in enumerate(reader.keys)]


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "options"),
    [
        ("h264.mp4", "libx264", "yuv420p", {"crf": 10}),
        ("h264-10-bit.mkv", "libx264", "yuv420p10le", {"crf": 10}),
        ("h264-444.mkv", "libx264", "yuv444p", {"crf": 10}),
        ("hevc.mp4", "libx265", "yuv420p", {"crf": 10, "x265-params": "log-level=none"}),
        ("hevc-10-bit.mkv", "libx265", "yuv420p10le", {"crf": 10, "x265-params": "log-level=none"}),
        ("av1.mkv", "libaom-av1", "yuv420p", {"crf": 10, "cpu-used": 8}),
        ("av1-10-bit.webm", "libaom-av1", "yuv420p10le", {"crf": 10, "cpu-used": 8}),
        ("vp9.webm", "libvpx-vp9", "yuv420p", {"crf": 10, "cpu-used": 8}),
        ("vp8.webm", "libvpx", "yuv420p", {"b:v": "4M"}),
        ("wmv2.wmv", "wmv2", "yuv420p", {"q:v": 2}),
        ("xvid.avi", "libxvid", "yuv420p", {"q:v": 2}),
        ("xvid-b-frames.avi", "mpeg4", "yuv420p", {"q:v": 2, "bf": 2, "vtag": "XVID"}),
        ("mpeg2.mpg", "mpeg2video", "yuv420p", {"q:v": 2}),
        ("mjpeg.mov", "mjpeg", "yuvj420p", {"q:v": 2}),
        ("flv1.flv", "flv", "yuv420p", {"q:v": 2}),
        ("prores.mov", "prores_ks", "yuv422p10le", {}),
    ],
)
def test_every_frame_of_a_codec_is_decoded(tmp_path, name, codec, pixel_format, options):
    path = tmp_path / name
    write_video(path, iter(FRAMES), codec=codec, pixel_format=pixel_format, options=options)
    assert probe(path).fault is None
    frames = decode_all(path)
    assert [frame.index for frame in frames] == list(range(20))
    decoded = np.stack([np.stack(frame.planes, -1) for frame in frames]).astype(int)
    assert np.abs(decoded - FRAMES).mean() < 8
    # the most similar frame has the same number: none was lost, repeated or moved
    bright = decoded[:, 10:22].sum(axis=(1, 3))
    true = FRAMES.astype(int)[:, 10:22].sum(axis=(1, 3))
    best = np.abs(bright[:, None] - true[None]).sum(axis=2).argmin(axis=1)
    assert best.tolist() == list(range(20))


@pytest.mark.parametrize(("width", "height"), [(51, 37), (1, 1), (2, 99), (97, 2), (333, 255)])
@pytest.mark.parametrize("color", ["ycc", "rgb"])
def test_odd_sizes_are_prepared(tmp_path, width, height, color):
    frames = np.full((4, height, width, 3), 90, np.uint8)
    frames[2:, : height // 2 + 1] = 200
    path = tmp_path / "odd.mkv"
    write_video(path, iter(frames), codec="ffv1", pixel_format="gbrp")
    (clip,) = build(tmp_path, path, clip_length=4, threshold=1, color=color)
    assert clip.keys.shape == (1, 3, height, width)
    assert np.abs(clip.to_frames().astype(int) - frames.transpose(0, 3, 1, 2)).max() <= 4


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_rotated_video_is_upright_in_its_shard(tmp_path, turn):
    upright, turned = tmp_path / "upright.mp4", tmp_path / "turned.mp4"
    write_video(upright, iter(FRAMES), options={"crf": 1})
    command = [ffmpeg_path(), "-loglevel", "error", "-display_rotation", str(turn), "-i", str(upright)]
    subprocess.run([*command, "-c", "copy", str(turned)], check=True)
    (clip,) = build(tmp_path, turned, key_quality=100)
    # the reference is what ffmpeg shows
    shown = subprocess.run(
        [
            ffmpeg_path(),
            "-loglevel",
            "error",
            "-i",
            turned,
            "-frames:v",
            "1",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "-",
        ],
        check=True,
        capture_output=True,
    ).stdout
    size = (96, 64) if turn % 180 else (64, 96)
    reference = np.frombuffer(shown, np.uint8).reshape(*size, 3).transpose(2, 0, 1).astype(int)
    assert clip.info.rotation_degrees == turn
    key = clip.keys[0].astype(int)
    assert np.abs(key - reference).mean() * 3 < np.abs(key[:, ::-1, ::-1] - reference).mean()


def test_times_of_a_variable_frame_rate_are_kept_in_the_shard(tmp_path):
    path = tmp_path / "vfr.mkv"
    times = [0, 40, 80, 300, 340, 380, 700, 740]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for time in times:
            frame = av.VideoFrame(32, 32, "yuv420p")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (clip,) = build(tmp_path, path, clip_length=8)
    assert clip.info.variable_frame_rate
    assert clip.info.times_seconds == tuple(time / 1000 for time in times)


@pytest.mark.parametrize("num_frames", [1, 5])
def test_a_video_shorter_than_a_clip_is_padded(tmp_path, num_frames):
    path = tmp_path / "short.mp4"
    write_video(path, iter(FRAMES[:num_frames]))
    (clip,) = build(tmp_path, path)
    assert clip.info.num_padded == 16 - num_frames
    assert clip.info.frame_indices == tuple(min(index, num_frames - 1) for index in range(16))
    assert clip.keys.shape == (4, 3, 64, 96)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_decoded_frames_count_not_those_of_the_header(tmp_path, suffix):
    source, path = tmp_path / f"source.{suffix}", tmp_path / f"later.{suffix}"
    codec = "mpeg4" if suffix == "avi" else "libx264"
    write_video(source, iter(moving_square(75)), codec=codec, options={"g": 25})
    command = [ffmpeg_path(), "-loglevel", "error", "-ss", "1.5", "-i", source, "-c", "copy", path]
    subprocess.run(command, check=True)
    count = subprocess.run(
        [ffmpeg_path(), "-loglevel", "error", "-i", path, "-fps_mode", "passthrough", "-f", "framehash", "-"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    num_shown = sum(not line.startswith("#") for line in count.splitlines())
    assert 0 < num_shown < 75
    assert probe(path).fault is None
    assert len(decode_all(path)) == num_shown
    assert len(build(tmp_path, path)) == num_shown // 16


def test_a_wrong_packet_count_is_planned_again(tmp_path, monkeypatch):
    path = tmp_path / "video.mp4"
    write_video(path, iter(moving_square(40)))
    honest = build(tmp_path / "honest", path)
    for wrong in (37, 61, 1000):
        monkeypatch.setattr(
            clip_encoder, "probe", lambda path, on_frames, n=wrong: dataclasses.replace(probe(path), num_packets=n)
        )
        clips = build(tmp_path / str(wrong), path)
        assert [clip.info for clip in clips] == [clip.info for clip in honest]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_flipped_bits_in_the_data_are_found(tmp_path, suffix):
    path = tmp_path / f"video.{suffix}"
    codec = "mpeg4" if suffix == "avi" else "libx264"
    write_video(path, iter(moving_square(60, width=160, height=120)), codec=codec, options={"g": 20})
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(10):
        damaged = bytearray(content)
        # forty flips in the middle of the frames
        for place in generator.integers(len(content) // 4, len(content) * 3 // 4, 40):
            damaged[place] ^= 1 << generator.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(UnreadableVideoError, match=r"^(open|decode): "):
            build(tmp_path, path)


def test_an_unknown_codec_is_skipped_as_such(tmp_path):
    path = tmp_path / "video.avi"
    write_video(path, iter(FRAMES), codec="mpeg4")
    path.write_bytes(path.read_bytes().replace(b"FMP4", b"ZZ99"))
    with pytest.raises(UnreadableVideoError, match="open: no decoder"):
        build(tmp_path, path)
