"""Raw videos → shards → batches. Knows nothing of networks."""
