"""Networks from configuration and weights: built, stacked S seeds on axis 0, restored."""
