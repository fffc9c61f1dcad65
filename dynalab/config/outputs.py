"""Where the outputs folder is. Alone in a file: commands that only read need nothing else of the configuration."""

from __future__ import annotations

import os
from pathlib import Path

from dynalab.config.places import user_path
from dynalab.core.errors import ConfigError


def outputs_root(given: str | None = None) -> Path:
    """Return the outputs folder: what was given, else `DYNALAB_OUTPUTS`, else ./outputs.

    Raises:
        ConfigError: It is a file, or below a home folder that there is not.
    """
    root = user_path(given or os.environ.get("DYNALAB_OUTPUTS") or "outputs").resolve()
    if root.exists() and not root.is_dir():
        raise ConfigError(f"outputs={root}: a file, not a folder")
    return root
