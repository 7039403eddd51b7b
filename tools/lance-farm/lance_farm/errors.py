"""What can go wrong, in one line each, and the exit codes that schedulers see."""

from __future__ import annotations

import os

EXIT_DONE = 0
EXIT_TASKS_FAILED = 1  # the command was carried out, but tasks have failed
EXIT_REFUSED = 2  # a command line, table, workflow or job folder that makes no sense; nothing was done
EXIT_NODE = 3  # this node cannot do the job: no model or another one, another backend, no lanced
EXIT_CANCELLED = 4  # the job was cancelled
EXIT_DISK = 5  # this node cannot write
EXIT_SIGNALLED = 128  # plus the signal, as 143 after SIGTERM; the task is given back


class FarmError(Exception):
    """Its text is one line that says what is wrong, where, and what to do."""

    exit_code = EXIT_REFUSED


class NodeError(FarmError):
    """This node cannot do the job; others may."""

    exit_code = EXIT_NODE


class DiskError(FarmError):
    """This node cannot write any more."""

    exit_code = EXIT_DISK


def redacted(text: str) -> str:
    """The text without the token, which no log and no file of a job may show."""
    token = os.environ.get("LANCED_TOKEN")
    return text.replace(token, "***") if token else text
