"""The store: plain folders, one writer a shard, nothing that a kill can leave half-written and believed."""
