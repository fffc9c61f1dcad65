"""Optimizers: torch.optim on stacked parameters, and the schedules of their rates."""
