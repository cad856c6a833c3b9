"""Troubleshooting: every message that the page explains is one that the program has."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
# the first cell of each row: one message, or two
MESSAGES = [
    message
    for row in re.findall(r"^\| (`.*?`) \| ", PAGE.read_text(), flags=re.MULTILINE)
    for message in re.findall(r"`([^`]+)`", row)
]


def literal_texts() -> str:
    """All text that stands in the program, with one character for each value that is filled in."""
    texts = []
    for path in sorted((ROOT / "respike").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                texts.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


@pytest.fixture(scope="module")
def texts() -> str:
    return literal_texts()


def test_the_page_explains_messages():
    assert len(MESSAGES) > 40


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_is_one_of_the_program(message, texts):
    pattern = "[^\n]*?".join(map(re.escape, message.split("…")))
    assert re.search(pattern, texts), f"no text of the program is like {message!r}"
