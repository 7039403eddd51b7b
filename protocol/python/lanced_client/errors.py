"""What can go wrong, one exception class per error code of the protocol.

The text of an exception is the daemon's own message wherever the daemon said one, without what could steer a terminal.
"""

from __future__ import annotations

from .printable import printable


class LanceError(Exception):
    """Base of everything this package raises on purpose."""

    code = "internal"

    def __init__(self, message: str) -> None:
        self.message = printable(message)
        super().__init__(self.message)


class BadRequest(LanceError):
    """A parameter or a message is wrong."""

    code = "bad_request"


class BadFile(LanceError):
    """A file of the model is missing or damaged."""

    code = "bad_file"


class TooLarge(LanceError):
    """A message or a job is over a limit; the message holds the numbers."""

    code = "too_large"


class NoMemory(LanceError):
    """The daemon could not get the memory."""

    code = "no_memory"


class NotFound(LanceError):
    """The daemon knows no such job or model, or lacks tensors that the request names."""

    code = "not_found"
    missing_blobs: tuple[str, ...] = ()  # those, as the request names them


class Busy(LanceError):
    """Not now: the job still runs, or the queue is full."""

    code = "busy"


class Unsupported(LanceError):
    """The daemon or the loaded model cannot do this."""

    code = "unsupported"


class Cancelled(LanceError):
    """The job was cancelled before it ended."""

    code = "cancelled"


class DeviceIO(LanceError):
    """Reading or writing failed on the daemon's side."""

    code = "io"


class InternalError(LanceError):
    """A fault in the daemon."""

    code = "internal"


class Forbidden(LanceError):
    """The token is missing, wrong, or may not do this."""

    code = "forbidden"


class ConnectionFailed(LanceError):
    """No daemon answers at the endpoint, or it went away."""

    code = "connection"


class ConnectionLost(ConnectionFailed):
    """The daemon had taken the connection, and then it broke."""


class AnswerTimeout(ConnectionFailed):
    """The daemon is connected but did not answer in time."""


class VersionMismatch(LanceError):
    """Client and daemon speak different versions of the protocol."""

    code = "version"


class BadAnswer(LanceError):
    """The peer's message is not one of this protocol."""

    code = "bad_answer"


class JobLost(LanceError):
    """The daemon that had the job was restarted and knows it no more."""

    code = "job_lost"


_BY_CODE: dict[str, type[LanceError]] = {
    kind.code: kind
    for kind in (
        BadRequest,
        BadFile,
        TooLarge,
        NoMemory,
        NotFound,
        Busy,
        Unsupported,
        Cancelled,
        DeviceIO,
        InternalError,
        Forbidden,
    )
}


def error_of(code: str, message: str) -> LanceError:
    """The exception for an error code of the daemon; unknown codes are kept readable."""
    kind = _BY_CODE.get(code)
    return kind(message) if kind else LanceError(f"{code}: {message}")
