"""The path that plug-ins know; the rule of convergence is in `dynalab.core.convergence`."""

from dynalab.core.convergence import WAYS as WAYS
from dynalab.core.convergence import ConvergenceKeys as ConvergenceKeys
from dynalab.core.convergence import converge as converge
from dynalab.core.convergence import convergence_step as convergence_step
from dynalab.core.convergence import follow as follow
from dynalab.core.convergence import resolve as resolve
