"""Analyses: pure functions from stored trajectories to results, and the thin command that stores them."""
