"""Addresses of shards elsewhere: which of them are opened. None may start a program or lead on to another address."""

from urllib.parse import urlsplit

import fsspec

from respike.errors import RespikeError

# file systems that wrap another address, open archives, or read through a program or a machine that runs code
_REFUSED = frozenset(
    [
        *("async_wrapper", "asyncwrapper", "blockcache", "cached", "dir", "filecache", "generic", "reference"),
        *("simplecache", "data", "libarchive", "tar", "zip"),
        *("arrow_hdfs", "dask", "git", "jlab", "jupyter", "pyscript"),
    ]
)
_FORM = "give a folder, or an address such as s3://bucket/folder or hf://datasets/owner/name"


def is_address(path: str) -> bool:
    """Whether `path` is no path on this machine. What only looks like an address is one: `pipe:` must not slip by."""
    return len(urlsplit(path).scheme) > 1  # one letter is a drive


def open_address(address: str) -> tuple["fsspec.AbstractFileSystem", str]:
    """The file system behind an address and the path on it.

    Raises RespikeError on `pipe:` and its like, on chains (`simplecache::s3://…`), on file systems that wrap another
    or run code, and where a package is missing that the address needs.
    """
    protocol, separator, _ = address.partition("://")
    if "::" in address or not separator or protocol.lower() in _REFUSED:
        raise RespikeError(
            f"{address!r} is no address that respike opens", f"{_FORM}; for a folder of that name, ./ first"
        )
    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise RespikeError(f"{address!r} cannot be opened: {error}", "install that package, then try again") from error
    except ValueError as error:
        raise RespikeError(f"{address!r} cannot be opened: {error}", _FORM) from error
    return system, str(path)
