"""The path that plug-ins know; the rates are in `dynalab.optim.rates`."""

from dynalab.optim.rates import decay_a_step as decay_a_step
from dynalab.optim.rates import drag as drag
from dynalab.optim.rates import learning_rates as learning_rates
from dynalab.optim.rates import rate_changes as rate_changes
from dynalab.optim.rates import rate_factors as rate_factors
