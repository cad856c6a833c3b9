"""Seen videos: which ones a network learned from, so that no score is made on them."""

import hashlib
from collections.abc import Iterable

# 12 digits are 48 bits: among 250,000 training and 20,000 test videos two unlike ids meet by chance once in 50,000
_NUM_DIGITS = 12


def hash_video(video_id: str) -> str:
    """Return 12 hex digits that stand for a video's id, short enough to keep one for every video of Kinetics."""
    return hashlib.sha256(video_id.encode("utf-8", "surrogateescape")).hexdigest()[:_NUM_DIGITS]


def find_seen(train_hashes: Iterable[str], video_ids: Iterable[str]) -> list[str]:
    """Return those of `video_ids` that are among `train_hashes`, sorted, each once."""
    seen = frozenset(train_hashes)
    return sorted(video_id for video_id in set(video_ids) if hash_video(video_id) in seen)
