"""Errors with a hint: what was wrong, and what to do next."""


class RespikeError(Exception):
    """An expected problem; the command line prints it as one line and exits with code 1.

    `problem` says what was wrong, what was given and what is allowed. `hint` says what to do next. An error that
    `is_shared` is raised in all processes of a distributed training, so that only one of them reports it.
    """

    is_shared = False

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(problem, hint)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.problem} ({self.hint})" if self.hint else self.problem


class RespikeWarning(UserWarning):
    """Something that the user should act on, though the work continues; the command line prints it as one line."""


class SettingError(RespikeError):
    """A setting outside its allowed values; `setting` is its name, None if the error is not about a single one."""

    def __init__(self, problem: str, hint: str = "", *, setting: str | None = None) -> None:
        super().__init__(problem, hint)
        self.setting = setting

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problem, self.hint), {"setting": self.setting}


class DatasetError(RespikeError):
    """A dataset whose files are not arranged as expected: no root, no list, two names for one thing."""


class ShardError(RespikeError):
    """A shard or index that breaks the format: cut, damaged or malicious."""


class CheckpointError(RespikeError):
    """Weights or a spec that do not fit: wrong header, checksum, tensor or field."""


class DownloadError(RespikeError):
    """A file that could not be downloaded, or is another one than expected."""


class MismatchError(RespikeError):
    """Two things that do not belong together, such as a checkpoint and shards of another stride."""


class DivergedError(RespikeError):
    """A training whose loss or weights are not finite any more; all its processes stop."""

    is_shared = True


class StoppedError(RespikeError):
    """A training that was asked to stop and has saved its state."""

    is_shared = True


class UnreadableVideoError(RespikeError):
    """A video that cannot be used; the run continues without it.

    `stage` is where it failed: `missing`, `open`, `read`, `decode`, `encode`, `timeout` or `crash`. `reason` is a line.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(f"{stage}: {reason}")
        self.args = (stage, reason)  # for pickling, as the error is sent between processes
        self.stage = stage
        self.reason = reason
