"""Kills of small sweeps at random moments: `base` says what is started and killed, `checks` what must be left."""
