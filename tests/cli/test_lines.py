import pytest
from respike.cli import console
from respike.cli.console import Lines, Warnings, format_facts, plain
from respike.common.text import format_bytes, format_rate, format_seconds


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves when told to."""

    class Clock:
        now = 100.0

        def monotonic(self) -> float:
            return self.now

    made = Clock()
    monkeypatch.setattr(console, "time", made)
    return made


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.7, "1.0 kB"),
        (1500, "1.5 kB"),
        (999_960, "1.0 MB"),
        (2e9, "2.0 GB"),
        (5e12, "5.0 TB"),
        (3e15, "3000.0 TB"),
    ],
)
def test_sizes_read_as_people_write_them(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
    ],
)
def test_durations_read_as_people_write_them(seconds, text):
    assert format_seconds(seconds) == text


def test_slow_work_is_told_in_seconds_a_unit():
    assert format_rate(12.34, "videos") == "12.3 videos/s"
    assert format_rate(0.25, "videos") == "4.0 s/video"
    assert format_rate(0.5, "batches") == "2.0 s/batch"
    assert format_rate(0, "videos") == "0.0 videos/s"
    assert format_rate(1_500_000, "bytes") == "1.5 MB/s"


def test_bytes_are_told_as_sizes(clock):
    told: list[str] = []
    with Lines(told.append).task("download x.rar", total=2_000_000_000, unit="bytes") as task:
        clock.now += 10
        task.advance(500_000_000)
        clock.now += 30
        task.advance(1_500_000_000)
    assert told == [
        "download x.rar: 0 B of 2.0 GB",
        "download x.rar: 500.0 MB of 2.0 GB · 50.0 MB/s · 30 s left",
        "download x.rar: 2.0 GB of 2.0 GB · 50.0 MB/s · took 40 s",
    ]


def test_facts_are_short():
    assert format_facts({"loss": 0.123456, "skipped": 2}) == "loss 0.1235 · skipped 2"


def test_a_name_cannot_write_to_the_terminal_but_as_text():
    assert plain("café [b] 猫") == "café [b] 猫"
    assert plain("a\x1b[31mb\nc") == "a\\x1b[31mb\\nc"
    assert plain("bad\udcff") == "bad\\udcff"


def test_a_task_tells_when_it_starts_every_few_seconds_and_when_it_ends(clock):
    told = []
    with Lines(told.append).task("prepare", total=10, unit="videos") as task:
        for _ in range(10):
            clock.now += 2
            task.advance(1, skipped=1)
    assert told == [
        "prepare: 0 of 10 videos",
        "prepare: 3 of 10 videos · 2.0 s/video · 14 s left · skipped 1",
        "prepare: 6 of 10 videos · 2.0 s/video · 8.0 s left · skipped 1",
        "prepare: 9 of 10 videos · 2.0 s/video · 2.0 s left · skipped 1",
        "prepare: 10 of 10 videos · 2.0 s/video · took 20 s · skipped 1",
    ]


def test_a_task_of_unknown_length_promises_no_end(clock):
    told = []
    with Lines(told.append).task("read", total=None, unit="videos") as task:
        clock.now += 6
        task.advance(12)
    assert told == ["read: 0 videos", "read: 12 videos · 2.0 videos/s", "read: 12 videos · 2.0 videos/s · took 6.0 s"]


def test_a_short_task_within_a_task_keeps_silent_and_a_long_one_speaks(clock):
    told = []
    progress = Lines(told.append)
    with progress.task("train", total=2, unit="batches"):
        with progress.task("score", total=1, unit="batches") as score:
            clock.now += 1
            score.advance()
        assert told == ["train: 0 of 2 batches"]
        with progress.task("score", total=9, unit="batches") as score:
            clock.now += 6
            score.advance()
    assert [line.partition(":")[0] for line in told] == ["train", "score", "score", "train"]


def test_work_that_fails_does_not_say_it_took_its_time_and_ended(clock):
    told = []
    progress = Lines(told.append)
    with pytest.raises(KeyError), progress.task("train", total=2, unit="batches"):
        raise KeyError
    assert told == ["train: 0 of 2 batches"]
    with progress.task("again", total=0, unit="batches"):
        pass
    assert told[1] == "again: 0 of 0 batches"


def test_warnings_alone_are_told_where_quiet_is_wanted():
    told = []
    progress = Warnings(told.append)
    with progress.task("train", total=2, unit="batches") as task:
        task.advance(2, loss=0.1)
    progress.say("a fact")
    progress.warn("a trouble")
    assert told == ["warning: a trouble"]
