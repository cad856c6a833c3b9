"""The documentation's site: it builds without a warning, links included, and its pages load nothing from elsewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_stands_for_itself(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "open_shards" in (tmp_path / "api" / "data" / "index.html").read_text()
    pages = [page.read_text() for page in tmp_path.rglob("*.html")]
    assert len(pages) > 20
    loads = re.compile(r'<(?:script|link)[^>]+(?:src|href)="https?:[^"]+')
    assert not [found for page in pages for found in loads.findall(page)]
