"""Lists: text as it was saved, by whatever program, in lines and rows."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from respike.errors import LayoutError


def read_text(path: Path) -> str:
    """Text as UTF-8, with or without a byte-order mark, else Latin-1. Raises LayoutError where it is no text."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise LayoutError(f"cannot read the list {path}: {error.strerror}", "check the path") from error
    if b"\0" in content:
        raise LayoutError(f"the list {path} holds zero bytes, so it is no list", "save it as UTF-8 text")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def split_lines(text: str) -> list[str]:
    """The lines of a text that ends them with CRLF, LF or CR."""
    # not splitlines(), which also cuts at characters that stand in names: NEL in Latin-1, line separators in JSON
    return re.split(r"\r\n?|\n", text)


def read_lines(path: Path) -> list[str]:
    """The lines of a list without blank ones and without white space at either end, whatever its line ends."""
    return [stripped for line in split_lines(read_text(path)) if (stripped := line.strip(" \t"))]


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of each row of a CSV file that is not blank. Raises LayoutError where it is no CSV."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield reader.line_num, row
    except csv.Error as error:
        raise LayoutError(f"{path} line {reader.line_num} is no CSV: {error}", "save it as CSV with commas") from error
