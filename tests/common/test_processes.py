"""Memory promises: a process that is told to keeps what it frees."""

import subprocess
import sys

import pytest

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
def test_a_process_that_keeps_memory_does_not_fetch_it_again_page_by_page():
    assert count_page_faults(keeps=True) * 5 < count_page_faults(keeps=False)
