"""The inline engine: a function over items in this very process, for what other processes cannot see."""

from collections.abc import Iterator, Sequence

from respike.data.engines.base import Function, Item, Recover, Result, Watch


def run(
    function: "Function[Item, Result]",
    items: Sequence[Item],
    num_workers: int | None,
    watch: Watch,
    *,
    recover: "Recover[Item] | None" = None,
    deadline_seconds: float | None = None,
) -> Iterator[tuple[int, Result]]:
    """Call `function(item, report)` on every item, in order, and yield (its index, the result).

    Of the promises of `base.Engine` it keeps those that one process can: nothing is watched from outside, so a death
    is the caller's own and a deadline does not count.
    """
    for index, item in enumerate(items):
        yield index, function(item, lambda note: watch(0, note))
