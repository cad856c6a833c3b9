"""Processes: memory is kept for reuse on request; processors are counted within all limits."""

import os
import subprocess
import sys

import pytest
from respike.common.processes import usable_cpus

ROUNDS = """
import resource, numpy as np
from respike.common.processes import keep_memory
if {keeps}: assert keep_memory()
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.full(1 << 20, 1, np.uint8)
before = faults()
for _ in range(50):
    parts = [np.full(1 << 20, 1, np.uint8) for _ in range(20)]
    del parts
print(faults() - before)
"""


def count_page_faults(*, keeps):
    code = ROUNDS.format(keeps=keeps)
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc is asked to keep memory")
def test_kept_memory_causes_fewer_page_faults():
    assert count_page_faults(keeps=True) * 5 < count_page_faults(keeps=False)


@pytest.fixture
def eight_cpus(monkeypatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize(
    ("quota", "num_cpus"),
    [
        (None, 8),
        ("max 100000", 8),
        ("1600000 100000", 8),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("what is this", 8),
    ],
)
def test_usable_cpus_respect_affinity_and_quota(tmp_path, quota, num_cpus):
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert usable_cpus(tmp_path) == num_cpus


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize(("value", "num_cpus"), [("3", 3), ("32", 8), ("0", 1), ("", 8), ("three", 8)])
def test_usable_cpus_respect_slurm(tmp_path, monkeypatch, value, num_cpus):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", value)
    assert usable_cpus(tmp_path) == num_cpus


def test_usable_cpus_are_at_least_one_on_this_machine():
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)
