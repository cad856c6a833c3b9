"""Remote: folders at addresses that fsspec reads and writes, and the shards of one on this machine."""
