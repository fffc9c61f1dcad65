"""The path that plug-ins and notebooks know; the errors are in `dynalab.core.errors`."""

from dynalab.core.errors import ConfigError as ConfigError
from dynalab.core.errors import DynalabError as DynalabError
from dynalab.core.errors import Interrupted as Interrupted
from dynalab.core.errors import Locked as Locked
from dynalab.core.errors import NothingMatched as NothingMatched
from dynalab.core.errors import RunsFailed as RunsFailed
from dynalab.core.errors import StoreError as StoreError
