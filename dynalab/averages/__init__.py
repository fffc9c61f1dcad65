"""Averages of the weights, which are evaluated beside them: one module each."""
