"""Ablation report: the results of a grid as table and pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from respike.cli.ablation_pictures import draw_pictures
from respike.cli.lines import format_share
from respike.files import canonical_json, write_atomically

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from respike.zoo.ablation import Cell, Summary

RESULTS_NAME = "results.jsonl"
TABLE_NAME = "table.md"
COLUMNS = (
    "stride",
    "θ",
    "branches",
    "fusion",
    "seeds",
    "top-1 of videos",
    "top-1 of clips",
    "mean class",
    "energy a clip",
    "sparse stem",
    "events not zero",
    "parameters",
)
_NUM_WORDS = 4


def write_results(out: Path, results: "Sequence[tuple[Cell, Mapping[str, Any]]]", figure: str) -> "list[Summary]":
    """Write what is known so far: a line a cell, the table, pictures of `figure`. Returns a summary a setting."""
    from respike.zoo.ablation import summarise_cells

    write_atomically(out / RESULTS_NAME, "".join(canonical_json(result) + "\n" for _, result in results))
    summaries = summarise_cells(results)
    write_atomically(out / TABLE_NAME, render_markdown(summaries))
    draw_pictures(summaries, out, figure)
    return summaries


def table_rows(summaries: "Sequence[Summary]") -> list[list[str]]:
    """Cells of the table, a row a setting, under `COLUMNS`."""
    return [
        [
            str(summary.setting.stride),
            str(summary.setting.threshold),
            summary.setting.branches,
            summary.setting.fusion_name,
            str(summary.num_seeds),
            *(_share(summary, name) for name in ("video_top1", "clip_top1", "video_mean_class_accuracy")),
            format_energy(summary.energy_joules),
            format_energy(summary.sparse_energy_joules),
            format_share(summary.event_density),
            f"{summary.num_parameters:,}",
        ]
        for summary in summaries
    ]


def render_markdown(summaries: "Sequence[Summary]") -> str:
    """The table as Markdown."""
    rules = ["---:"] * len(COLUMNS)
    rules[2:_NUM_WORDS] = ["---", "---"]
    rows = [COLUMNS, rules, *table_rows(summaries)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def format_energy(joules: float) -> str:
    """An energy for people: 1.23 mJ, 456 µJ."""
    return f"{1e3 * joules:.3g} mJ" if joules >= 1e-3 else f"{1e6 * joules:.3g} µJ"


def _share(summary: "Summary", name: str) -> str:
    deviation = summary.deviations[name]
    share = format_share(summary.figures[name])
    return share if deviation is None else f"{share} ± {100 * deviation:.1f}"
