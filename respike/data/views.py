"""Views: which of a video's stored clips, and which squares of them, an evaluation looks at."""

import re
from dataclasses import dataclass

from respike.data.dataset import ShardDataset
from respike.errors import SettingError

CROPS = (1, 3)
_FORM = re.compile(r"(all|[0-9]+)(?:[x×]([0-9]+))?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Views:
    """Clips of a video (None: all that are stored) times square crops of each clip, along its longer side."""

    clips: int | None = None
    crops: int = 1

    def __post_init__(self) -> None:
        if self.clips is not None and self.clips < 1:
            raise SettingError(f"{self.clips} clips of a video", "take at least 1")
        if self.crops not in CROPS:
            raise SettingError(f"{self.crops} crops of a clip", f"choose from {', '.join(map(str, CROPS))}")

    def __str__(self) -> str:
        return f"{'all' if self.clips is None else self.clips}x{self.crops}"


def parse_views(text: str) -> Views:
    """Read `CLIPS` or `CLIPSxCROPS`, such as `1`, `10x3` or `allx3`. Raises SettingError where it is neither."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise SettingError(f"views are {text!r}", "write CLIPS or CLIPSxCROPS, such as 1, 3, 10x3 or allx3")
    clips = None if match[1].lower() == "all" else int(match[1])
    return Views(clips=clips, crops=int(match[2] or 1))


def spread_clips(dataset: ShardDataset, num_clips: int | None) -> ShardDataset:
    """The part with `num_clips` clips of each video, or all it has where it has no more (None: all of every video).

    Of n stored clips those are taken that stand in the middle of `num_clips` equal parts: number
    `⌊(2i + 1) · n / (2 · num_clips)⌋` for i from 0, so that one alone is the middle one.
    """
    if num_clips is None:
        return dataset
    of_video: dict[str, list[int]] = {}
    for number, row in enumerate(dataset.clips):
        of_video.setdefault(row.video, []).append(number)
    chosen = []
    for numbers in of_video.values():
        count = min(num_clips, len(numbers))
        chosen += [numbers[(2 * place + 1) * len(numbers) // (2 * count)] for place in range(count)]
    return dataset.select(sorted(chosen))
