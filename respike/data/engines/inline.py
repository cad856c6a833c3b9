"""The inline engine: a job on items in this very process, for what other processes cannot see."""

from collections.abc import Iterator, Sequence

from respike.data.engines.base import Item, Job, Result, Settling, Watch


def run(
    job: Job[Item, Result], items: Sequence[Item], num_workers: int | None, watch: Watch
) -> Iterator[tuple[int, Result]]:
    """Do the job on every item, in order, and yield (its index, the result).

    Of the promises of `base.Engine` it keeps those that one process can: nothing is watched from outside, so a death
    is the caller's own and a deadline does not count.
    """
    for index, item in enumerate(items):
        result = job.function(item, lambda note: watch(0, note))
        yield index, result.settle() if isinstance(result, Settling) else result
