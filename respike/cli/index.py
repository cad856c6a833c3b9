"""`respike index`: parts that several runs prepared to one data set."""

import click

from respike.cli import completion, console
from respike.cli.prepare import gather_facts, report


@click.command(
    epilog="""\b
Examples:
  respike index shards/kinetics400
  respike index shards/kinetics400 --json
"""
)
@click.argument("out", metavar="OUT", shell_complete=completion.data_sets)
@click.option("--quiet", is_flag=True, help="Print only errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(out: str, quiet: bool, as_json: bool) -> None:
    """Join what the runs of `respike prepare --part K/N` wrote to OUT: check that nothing is missing, write the index.

    The result has the same bytes as that of one run without --part. If parts are missing, they are named and nothing
    is written. A lost index is also written again.
    """
    from respike.data.preparation import join_parts

    summary = join_parts(out)
    if as_json:
        console.print_json(gather_facts(summary))
    elif not quiet:
        report(summary)
