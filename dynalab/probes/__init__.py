"""Probes: what is measured while training, batched over seeds."""
