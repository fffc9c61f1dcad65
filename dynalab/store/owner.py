"""Who holds a lock, and whether that process still lives, as far as it can be seen from here.

A process is named by the kernel that runs it (its boot id), the space its number counts in (its pid namespace), its
number, and the tick at which it started. Names of hosts say nothing: they change, and containers share them. Where
kernel and space are our own, the kernel knows who lives. Anywhere else nobody can tell but by watching the heartbeat;
another boot under the same host's name is no exception, since two machines of one image are called alike.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass, fields

from dynalab.core import processes

_BEAT_DIGITS = 10
_MOST_PIDS = 2**31


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock, by one claim of it; what cannot be read of it is empty."""

    host: str  # Name of the machine, for people.
    boot: str  # Id of the kernel's current boot.
    pid: int
    started: str  # When the process started, in the kernel's ticks; tells a reused pid.
    space: str = ""  # Its pid namespace; empty in lock files of before.
    token: str = ""  # Random, made for each claim: what a claim is told from every other by.

    @classmethod
    def me(cls) -> Owner:
        """Return this process, with a token of its own."""
        _, started = processes.state_and_start("self") or ("", "")
        return cls(
            socket.gethostname(),
            processes.boot(),
            os.getpid(),
            started,
            processes.space(),
            secrets.token_hex(16),
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Owner | None:
        """Read what a lock file holds; None where that names no process."""
        try:
            values = json.loads(data)
            found = cls(**{item.name: values[item.name] for item in fields(cls) if item.name in values})
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        texts = (found.host, found.boot, found.started, found.space, found.token)
        numbered = type(found.pid) is int and 0 < found.pid < _MOST_PIDS
        return found if numbered and all(isinstance(text, str) for text in texts) else None

    def to_bytes(self, beat: int = 0) -> bytes:
        """Return what a lock file holds, always of one length: JSON, whose last value counts the heartbeats."""
        return json.dumps({**asdict(self), "beat": f"{beat:0{_BEAT_DIGITS}}"}).encode()

    @property
    def said(self) -> str:
        """Return how a user reads it; a stranger's file may hold any name."""
        host = "".join(letter for letter in self.host if letter.isprintable())[:64]
        return f"process {self.pid} on {host}"

    def lives(self) -> bool | None:
        """Return whether the process lives; None where it cannot be seen from here.

        What cannot be read on either side is not held against it: without `/proc`, and in lock files of before, a
        process of that number under the same host's name is taken for the owner, and the lack of one proves nothing.
        """
        pairs = ((self.boot, processes.boot()), (self.space, processes.space()))
        if any(its and ours and its != ours for its, ours in pairs):
            return None
        same = all(its and ours for its, ours in pairs)
        if not same and self.host != socket.gethostname():
            return None
        if processes.exists(self.pid, self.started):
            return True
        return False if same else None
