"""What a stopped run leaves: no temporary file of its own, however it was stopped, once it or the next has ended."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from respike.data.plan import Part
from respike.data.preparation import prepare

from tests.conftest import listing_of
from tests.data.conftest import SMALL


def temporaries(out: Path) -> list[str]:
    return sorted(path.name for path in out.rglob(".*.tmp"))


def test_sigterm_to_all_processes_of_a_run_leaves_no_temporary_file(tmp_path, video_folder):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "respike", "prepare", "folder", "--root", str(video_folder), "--out", str(out)]
    # the workers hang in the midst of their shards, so that they are hit there
    environment = os.environ | {"RESPIKE_FAULTS": "decode=hang"}
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True, env=environment) as run:
        deadline = time.monotonic() + 60
        while not list(out.glob(".*.tar.*.tmp")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(out.glob(".*.tar.*.tmp"))
        os.killpg(run.pid, signal.SIGTERM)
        _, complaint = run.communicate(timeout=60)
    assert run.returncode == 143, complaint
    assert temporaries(out) == []


def test_a_part_clears_away_what_it_left_when_it_was_killed_and_nothing_of_the_others(tmp_path, video_folder):
    out = tmp_path / "out"
    listing = listing_of(video_folder)
    prepare(listing, out, SMALL, num_workers=1, part=Part(number=1, count=2))
    own, other = ".test-000000.tar.0123abcd.tmp", ".train-000000.tar.0123abcd.tmp"
    owners = {Part(number=number, count=2) for number in (1, 2)}
    for name in (own, other):
        (out / name).write_bytes(b"half")
        (out / ".respike" / "done" / name.replace(".tar.", ".tar.json.")).write_bytes(b"half")
    for part in sorted(owners, key=lambda part: part.number):
        before = set(temporaries(out))
        prepare(listing, out, SMALL, num_workers=1, part=part)
        # one of the two shards is this part's, and its temporary files alone are gone
        gone = before - set(temporaries(out))
        assert len(gone) == 2
        assert len({name.partition(".tar")[0] for name in gone}) == 1
    assert temporaries(out) == []
