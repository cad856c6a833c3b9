"""Signals: the first one is announced at once, even within a long computation; the second one ends the program."""

import hashlib
import os
import pty
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
def ctrl_c_handler() -> Iterator[None]:
    """Python's handler of Ctrl-C, also if the tests run in the background of a shell, where Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def compute(num_rounds: int, *signals: signal.Signals) -> None:
    """One call that delays Python's handlers, as a backward pass does; the signals arrive within it."""

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
    ("number", "text"),
    [
        (signal.SIGINT, "interrupted: stopping after this batch, once all is saved; Ctrl-C again stops at once"),
        (signal.SIGTERM, "terminated: stopping after this batch, once all is saved; SIGTERM again stops at once"),
        (signal.SIGHUP, "terminal closed (SIGHUP): stopping after this batch, once all is saved; Ctrl-C or SIGTERM"),
        (signal.SIGUSR1, "warned by the batch system (SIGUSR1): stopping after this batch, once all is saved; Ctrl-C"),
    ],
)
def test_a_signal_is_announced_within_a_long_computation(num_rounds, number, text):
    lines = []
    before = signal.getsignal(number)
    with GracefulShutdown(lambda line: lines.append((line, time.perf_counter()))) as signals:
        assert not signals.stop_requested()
        compute(num_rounds, number)
        ended = time.perf_counter()
        assert signals.stop_requested()
    ((line, at),) = lines
    assert line.startswith(text)
    assert at < ended - 0.3 * SECONDS_BUSY
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_within_one_batch_stops_at_once(num_rounds, ctrl_c_handler):
    lines = []
    with pytest.raises(KeyboardInterrupt), GracefulShutdown(lines.append):
        compute(num_rounds, signal.SIGINT, signal.SIGINT)
    assert len(lines) == 1


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_a_warning_may_come_twice_before_ctrl_c_ends(number, ctrl_c_handler):
    lines = []
    with GracefulShutdown(lines.append) as signals:
        for _ in range(3):
            signal.raise_signal(number)
        assert (signals.stop_requested(), signals.code) == (True, 128 + number)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert len(lines) == 1


def test_under_nohup_a_closed_terminal_stops_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with GracefulShutdown(lambda line: None) as signals:
            signal.raise_signal(signal.SIGHUP)
            assert not signals.stop_requested()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_output_to_a_closed_terminal_is_discarded():
    main_end, terminal = pty.openpty()
    kept = os.dup(1)
    try:
        os.dup2(terminal, 1)
        os.close(terminal)
        with GracefulShutdown(lambda line: None) as signals:
            os.close(main_end)
            signal.raise_signal(signal.SIGHUP)
            assert signals.stop_requested()
            os.write(1, b"saved")
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def test_a_closed_output_does_not_prevent_the_stop(num_rounds):
    def warn(line: str) -> None:
        raise BrokenPipeError

    with GracefulShutdown(warn) as signals:
        compute(num_rounds // 2, signal.SIGINT)
        assert signals.stop_requested()


def test_an_earlier_wakeup_pipe_is_restored():
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


def test_outside_the_main_thread_handlers_are_kept():
    before = signal.getsignal(signal.SIGINT)
    problems = []

    def enter() -> None:
        try:
            with GracefulShutdown(lambda line: None) as signals:
                assert not signals.stop_requested()
        except Exception as error:
            problems.append(error)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert problems == []
    assert signal.getsignal(signal.SIGINT) is before
