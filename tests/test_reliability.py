"""What docs/reliability.md names as a test is one."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_row_names_tests_that_exist():
    rows = [
        line for line in (ROOT / "docs" / "reliability.md").read_text().splitlines() if re.match(r"\| \d+ \|", line)
    ]
    assert rows
    for row in rows:
        last = row.rstrip(" |").rpartition("|")[2]
        if "the same test" in last:
            continue
        for path in re.findall(r"[\w/]+\.py", last):
            assert (ROOT / path).is_file(), row
        names = re.findall(r"`(?:([\w/]+\.py)::)?(test_\w+)`", last)
        assert ".py" in last, row
        path = ""
        for given, name in names:
            path = given or path
            assert f"def {name}(" in (ROOT / path).read_text(), row
