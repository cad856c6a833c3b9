"""Building: which videos stand in which shard, and what a worker makes of them, wherever it runs."""
