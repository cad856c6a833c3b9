"""Stopping: a signal is told as it comes, whatever is being computed, and the second one is not waited out."""

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from respike.common.signals import GracefulShutdown

SECONDS_BUSY = 1.0


@pytest.fixture(scope="module")
def num_rounds() -> int:
    """Rounds of hashing that take about SECONDS_BUSY."""
    started = time.perf_counter()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 100_000)
    return int(100_000 * SECONDS_BUSY / (time.perf_counter() - started))


@pytest.fixture
def heeded() -> Iterator[None]:
    """Ctrl-C as Python heeds it, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def compute(num_rounds: int, *signals: signal.Signals) -> None:
    """One call that Python's handlers have to wait out, as a backward pass is; signals come within it."""

    def send() -> None:
        for number in signals:
            time.sleep(0.1 * SECONDS_BUSY)
            os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        hashlib.pbkdf2_hmac("sha256", b"", b"", num_rounds)
    finally:
        sender.join()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGINT, "interrupted: stopping after this batch, once all is saved; Ctrl-C again stops at once"),
        (signal.SIGTERM, "terminated: stopping after this batch, once all is saved; SIGTERM again stops at once"),
    ],
)
def test_a_signal_is_told_while_the_batch_is_still_being_computed(num_rounds, number, said):
    told = []
    before = signal.getsignal(number)
    with GracefulShutdown(lambda line: told.append((line, time.perf_counter()))) as signals:
        assert not signals.is_asked()
        compute(num_rounds, number)
        ended = time.perf_counter()
        assert signals.is_asked()
    ((line, at),) = told
    assert line.startswith(said)
    assert at < ended - 0.3 * SECONDS_BUSY
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_stops_at_once_though_it_came_within_the_same_batch(num_rounds, heeded):
    told = []
    with pytest.raises(KeyboardInterrupt), GracefulShutdown(told.append):
        compute(num_rounds, signal.SIGINT, signal.SIGINT)
    assert len(told) == 1


def test_a_reader_that_has_gone_does_not_undo_the_stop(num_rounds):
    def tell(line: str) -> None:
        raise BrokenPipeError

    with GracefulShutdown(tell) as signals:
        compute(num_rounds // 2, signal.SIGINT)
        assert signals.is_asked()


def test_what_heard_signals_before_hears_them_again():
    out, into = os.pipe()
    os.set_blocking(into, False)
    before = signal.set_wakeup_fd(into)
    try:
        with GracefulShutdown(lambda line: None):
            pass
        assert signal.set_wakeup_fd(before) == into
    finally:
        os.close(out)
        os.close(into)


def test_outside_the_main_thread_signals_are_left_to_whoever_embeds_us():
    before = signal.getsignal(signal.SIGINT)
    problems = []

    def enter() -> None:
        try:
            with GracefulShutdown(lambda line: None) as signals:
                assert not signals.is_asked()
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert problems == []
    assert signal.getsignal(signal.SIGINT) is before
