"""From shards to batches: reader, cache, data service, pipeline."""
