"""The Python interface: what the command line does, as functions that return objects."""

from dynalab.api.analyses import analyze as analyze
from dynalab.api.analyses import view as view
from dynalab.api.ensembles import ensembles_frame as ensembles_frame
from dynalab.api.ensembles import load as load
from dynalab.api.ensembles import load_all as load_all
from dynalab.api.training import fork as fork
from dynalab.api.training import import_checkpoints as import_checkpoints
from dynalab.api.training import import_runs as import_runs
from dynalab.api.training import train as train
