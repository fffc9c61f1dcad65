"""Analyses that train: plans waves of forks, and hands back their runs."""
