"""Addresses: which of them are opened, reading or writing. None may start a program or lead on to another address."""

import os
from urllib.parse import urlsplit, urlunsplit

import fsspec

from respike.errors import RespikeError

PROTOCOLS_VARIABLE = "RESPIKE_PROTOCOLS"
# stores that move bytes and do nothing else. Left out: what wraps another address (simplecache, reference), opens
# archives (zip), or reads through a program or a machine that runs code (git, github, dask, jupyter)
PROTOCOLS = (
    *("https", "http", "hf"),
    *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "oci", "tos"),
    *("sftp", "ssh", "ftp", "smb", "webdav", "hdfs", "webhdfs"),
    *("file", "local", "memory"),
)
_WEB = ("http", "https")
THIS_MACHINE = frozenset(["file", "local", "memory"])


def protocol_of(address: str) -> str:
    """What stands before the first colon, in small letters; "" for a path on this machine.

    What only looks like an address is one, so that `pipe:` does not slip by.
    """
    scheme = address.partition(":")[0]
    # one letter is a drive
    is_scheme = len(scheme) > 1 and scheme.isascii() and scheme[0].isalpha() and ":" in address
    return scheme.lower() if is_scheme and all(each.isalnum() or each in "+-." for each in scheme) else ""


def is_address(path: str) -> bool:
    """Whether `path` is no path on this machine: the one answer for all that takes either."""
    return bool(protocol_of(path))


def is_web(address: str) -> bool:
    """Whether an address is asked by HTTP."""
    return protocol_of(address) in _WEB


def check_address(address: str) -> None:
    """Raise RespikeError, naming the allowed, on an address that is none of them: `pipe:`, `git://`, `a::s3://…`.

    Others that fsspec knows are opened where RESPIKE_PROTOCOLS names them, parted by spaces.
    """
    protocol = protocol_of(address)
    allowed = (*PROTOCOLS, *os.environ.get(PROTOCOLS_VARIABLE, "").lower().split())
    # of a web address, colons are those of an IPv6 host, or a part of the path: none leads fsspec on
    is_chain = "::" in address and not is_web(address)
    if protocol and (protocol not in allowed or is_chain or "://" not in address):
        raise RespikeError(
            f"{without_password(address)!r} is no address that respike opens; allowed are a path and "
            f"{', '.join(f'{each}://' for each in allowed)}",
            f"for a path of that name, ./ first; another store's protocol, if you trust it, in {PROTOCOLS_VARIABLE}",
        )


def open_address(address: str) -> tuple["fsspec.AbstractFileSystem", str]:
    """The file system behind an address, or a path of this machine, and the path on it.

    Raises RespikeError as `check_address` does, and where a package is missing that the address needs.
    """
    check_address(address)
    if not is_address(address):
        system = fsspec.filesystem("file")
        return system, str(system._strip_protocol(address))
    protocol = protocol_of(address)
    # fsspec knows protocols in small letters alone
    address = protocol + address[len(protocol) :]
    try:
        if is_web(address):
            return fsspec.filesystem(protocol), address
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:
        raise RespikeError(
            f"{without_password(address)!r} cannot be opened: {error}", "install that package, then try again"
        ) from error
    except ValueError as error:
        raise RespikeError(
            f"{without_password(address)!r} cannot be opened: {error}",
            "give a path, or an address such as s3://bucket/folder or hf://datasets/owner/name",
        ) from error
    return system, str(path)


def without_password(address: str) -> str:
    """The address as it may be shown."""
    if "@" not in address:
        return address
    try:
        parts = urlsplit(address)
    except ValueError:
        return address
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
