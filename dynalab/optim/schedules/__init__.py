"""Schedules: how the learning rate moves.

A schedule module holds `Config` and `build(config, total) -> factor`, where `factor(step)` multiplies the rate of the
update `step` -> `step + 1`. `needs_total(config)` says whether the factor depends on the length of training; only
then is the length part of an ensemble's identity, and only then can training not be prolonged. One of a user's that
does not say is taken to depend on it. `warmup(config)` and `milestones(config)` of a shipped one say, where there are
such, over how many steps the rate rises, and at which it is lowered: of a training that does not come so far there is
a warning.
"""
