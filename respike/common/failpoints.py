"""Failpoints: kills, hangs and errors at named points of the program, for tests.

The environment variable RESPIKE_FAULTS holds rules `point[:name]=action[@once]`, separated by `;`. A rule acts when the
program reaches the point with a name that contains `name`; with `once`, the path of a marker file, only the first time.
"""

import errno
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

ACTIONS = ("kill", "kill-group", "segfault", "hang", "disk-full", "leak")
_LEAKED_BYTES = 30_000_000
_leaked: list[bytes] = []


@dataclass(frozen=True)
class _Rule:
    point: str
    name: str
    action: str
    once: Path | None


def _parse(text: str) -> list[_Rule]:
    rules = []
    for part in filter(None, text.split(";")):
        where, _, what = part.partition("=")
        point, _, name = where.partition(":")
        action, _, once = what.partition("@")
        if action not in ACTIONS:
            raise ValueError(f"RESPIKE_FAULTS: {action!r} is no action; choose from {', '.join(ACTIONS)}")
        rules.append(_Rule(point, name, action, Path(once) if once else None))
    return rules


_rules = _parse(os.environ.get("RESPIKE_FAULTS", ""))


def reach(point: str, name: str = "") -> None:
    """Run the actions of the rules for `point` and `name`, if there are any."""
    if not _rules:
        return
    for rule in _rules:
        if rule.point == point and rule.name in name and _is_due(rule):
            _act(rule.action)


def _is_due(rule: _Rule) -> bool:
    if rule.once is None:
        return True
    try:
        rule.once.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _act(action: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "kill-group":
        os.killpg(0, signal.SIGKILL)
    elif action == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif action == "disk-full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif action == "leak":
        _leaked.append(os.urandom(_LEAKED_BYTES))
    while action == "hang":
        time.sleep(1)
