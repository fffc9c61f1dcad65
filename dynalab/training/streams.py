"""The path that plug-ins know; the streams are in `dynalab.core.streams`."""

from dynalab.core.streams import NAMES as NAMES
from dynalab.core.streams import Streams as Streams
