"""Launchers: who runs the shards. All keep the same contract on disk."""
