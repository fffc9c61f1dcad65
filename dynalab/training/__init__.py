"""Training: the seeds of a shard stacked on axis 0, one lockstep loop, rows and checkpoints on the way."""
