"""The dataset card: README.md beside the shards, in the form that model hubs show."""

from typing import Any

from respike.wording import counted

_CARD = """---
pretty_name: {name}
task_categories:
- video-classification
tags:
- webdataset
- events
- respike
configs:
- config_name: default
  data_files:
{files}
---

# {name}

Key frames and sparse residual events of {written} in {classes}, prepared by
[respike](https://pypi.org/project/respike/) as WebDataset shards: {clips} of {clip_length} frames, one key
frame in {stride}, events of contrast threshold {threshold} in {color}, {density:.1%} of them not zero.

| subset | shards | clips | bytes |
| --- | ---: | ---: | ---: |
{rows}

Of {listed} {skipped:,} could not be read; `skipped.jsonl` names them and says why.

Each sample holds `key00.jpg` … (one JPEG a group), `events` (the residual events, zstd-compressed) and `json` (video,
label, class, frame indices and times). `dataset.json` lists the shards with their SHA-256.

```python
from respike.data import make_loader, open_shards

loader = make_loader(open_shards("."), batch_size=32, training=False, image_size=224)
```
"""


def dataset_card(index: dict[str, Any]) -> str:
    """The card of the shards that `index` (the content of dataset.json) lists."""
    subsets = sorted({shard["subset"] for shard in index["shards"]})
    rows, files = [], []
    for subset in subsets:
        shards = [shard for shard in index["shards"] if shard["subset"] == subset]
        clips, size = (sum(shard[name] for shard in shards) for name in ("num_samples", "num_bytes"))
        rows.append(f"| {subset} | {len(shards):,} | {clips:,} | {size:,} |")
        # hubs know the third split by its long name
        split = "validation" if subset == "val" else subset
        files.append(f"  - split: {split}\n    path: {subset}-*.tar")
    settings, videos = index["settings"], index["videos"]
    return _CARD.format(
        name=f"{index['dataset']}" + (f" split {index['split']}" if index["split"] else ""),
        files="\n".join(files),
        rows="\n".join(rows),
        classes=counted(len(index["classes"]), "class"),
        clips=counted(index["num_clips"], "clip"),
        density=index["event_density"],
        clip_length=settings["clip_length"],
        stride=settings["stride"],
        threshold=settings["threshold"],
        color=settings["color"],
        listed=counted(videos["listed"], "listed video"),
        written=counted(videos["written"], "video"),
        skipped=videos["skipped"],
    )
