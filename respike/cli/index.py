"""`respike index`: parts prepared by runs of their own → one data set."""

import click

from respike.cli import completion
from respike.cli.prepare import gather_facts, report


@click.command(
    epilog="""\b
Examples:
  respike index shards/kinetics400
  respike index shards/kinetics400 --json
"""
)
@click.argument("out", metavar="OUT", shell_complete=completion.data_sets)
@click.option("--quiet", is_flag=True, help="Say nothing but errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(out: str, quiet: bool, as_json: bool) -> None:
    """Join what the runs of `respike prepare --part K/N` wrote to OUT: check that all is there, write the index.

    The result is the same, byte for byte, as that of one run without --part. Where parts are missing nothing is written
    and they are named. An index that was lost is made again, too.
    """
    from respike.cli import console
    from respike.data.preparation import join_parts

    summary = join_parts(out)
    if as_json:
        console.print_json(gather_facts(summary))
    elif not quiet:
        report(summary)
