"""Forging: shards changed by hand, with an index that fits them."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from respike.common.files import INDEX_NAME, seal, sha256_of_bytes, unseal
from respike.data import index
from respike.data.shard import ShardReader, ShardWriter

Samples = list[tuple[str, dict[str, bytes]]]


def write_shard(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> tuple[int, int, str]:
    """Write `samples` (key, members) to `path`; return their number, the bytes and the SHA-256."""
    with path.open("wb") as file:
        writer = ShardWriter(file)
        for key, members in samples:
            writer.add(key, members)
        return writer.num_samples, *writer.close()


def reseal(out: Path, change: Callable[[dict], None] = lambda value: None) -> None:
    """Change the index, then give it the right checksums of all files."""
    value = unseal((out / INDEX_NAME).read_bytes())
    del value["sha256"]
    change(value)
    for name, field in ((index.VIDEOS_NAME, "rows_sha256"), (index.SKIPPED_NAME, "skipped_sha256")):
        value["videos"][field] = sha256_of_bytes((out / name).read_bytes())
    for shard in value["shards"]:
        if (out / shard["name"]).is_file():
            content = (out / shard["name"]).read_bytes()
            shard |= {"num_bytes": len(content), "sha256": sha256_of_bytes(content)}
    (out / INDEX_NAME).write_text(seal(value, indent=1))


def forge_samples(out: Path, shard: str, change: Callable[[Samples], Samples]) -> None:
    """Rewrite the samples of a shard and reseal the index."""
    reader = ShardReader(out / shard)
    samples = [(key, reader.members(position)) for position, key in enumerate(reader.keys)]
    write_shard(out / shard, change(samples))
    reseal(out)


def forge_member(out: Path, shard: str, name: str, content: bytes) -> str:
    """Replace one member of the first sample of a shard; return the sample's key."""
    keys = []

    def change(samples: Samples) -> Samples:
        key, members = samples[0]
        keys.append(key)
        return [(key, {**members, name: content}), *samples[1:]]

    forge_samples(out, shard, change)
    return keys[0]


def change_info(content: bytes, **fields: object) -> bytes:
    """A JSON member with other fields."""
    return json.dumps(json.loads(content) | fields).encode()
