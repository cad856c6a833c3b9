"""What docs/reliability.md names as a test is one."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROWS = [line for line in (ROOT / "docs" / "reliability.md").read_text().splitlines() if re.match(r"\| \d+ \|", line)]


def test_every_row_names_tests_that_exist():
    assert ROWS
    for row in ROWS:
        last = row.rstrip(" |").rpartition("|")[2]
        if "the same test" in last:
            continue
        assert ".py" in last, row
        path = ROOT
        for named in re.findall(r"`([\w/:.]+)`", last):
            file, *inner = named.split("::") if ".py" in named else ["", *named.split("::")]
            if file:
                # a bare name stands beside the file before it
                path = ROOT / file if "/" in file else path.parent / file
            assert path.is_file(), row
            for name in inner:
                assert re.search(rf"^\s*(async )?(def|class) {name}\b", path.read_text(), re.MULTILINE), row
