"""Errors with a hint: what was wrong, and what to do next."""


class RespikeError(Exception):
    """A problem that respike foresaw; the command line prints it as one line and exits 1.

    `problem` says what was wrong, with what was got and what is allowed; `hint` says what to do next. With several
    processes an error that `is_shared` is raised in all of them alike, so that one of them telling it is enough.
    """

    is_shared = False

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem, hint)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem} ({self.hint})" if self.hint else self.problem


class SettingError(RespikeError):
    """A setting outside its allowed values; `setting` is its name, where the error is about one."""

    def __init__(self, problem: str, hint: str = "", *, setting: str | None = None) -> None:
        super().__init__(problem, hint)
        self.setting = setting

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problem, self.hint), {"setting": self.setting}


class LayoutError(RespikeError):
    """A dataset that does not lie on disk as expected: no root, no list, two names for one thing."""


class ShardError(RespikeError):
    """A shard or index that breaks the format: cut, damaged, or made to harm."""


class CheckpointError(RespikeError):
    """Weights or their spec that do not fit: wrong header, hash, tensor or field."""


class DownloadError(RespikeError):
    """A file that could not be fetched, or is not the one that was meant."""


class MismatchError(RespikeError):
    """Two things that must not be used together, such as a checkpoint and shards of another stride."""


class DivergedError(RespikeError):
    """A training whose loss or weights are no numbers any more; all its processes stop."""

    is_shared = True


class StoppedError(RespikeError):
    """A training that was asked to stop and has saved where it stands."""

    is_shared = True


class UnreadableVideoError(RespikeError):
    """A video that cannot be used; the run goes on without it.

    `stage` is where it failed (`missing`, `open`, `read`, `decode`, `encode`, `timeout`, `crash`), `reason` one line on
    why.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.args = (stage, reason)  # so that it crosses a process boundary whole
        self.stage = stage
        self.reason = reason
