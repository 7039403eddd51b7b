"""lanced_client: ask a resident lanced daemon for pictures, videos and text (see client.py).

The protocol is described in protocol/PROTOCOL.md. Needs numpy; uses pynng where it is
installed. Never imports torch.
"""

from .client import Client, Job
from .endpoint import default_endpoint
from .errors import (
    AnswerTimeout,
    BadAnswer,
    BadFile,
    BadRequest,
    Busy,
    Cancelled,
    ConnectionFailed,
    ConnectionLost,
    DeviceIO,
    Forbidden,
    InternalError,
    JobLost,
    LanceError,
    NoMemory,
    NotFound,
    TooLarge,
    Unsupported,
    VersionMismatch,
)
from .events import (
    CancelledEvent,
    Choice,
    Done,
    Event,
    Failed,
    Hello,
    ModelInfo,
    OfferedModel,
    Paused,
    Preview,
    Progress,
    Queued,
    Result,
    Sampling,
    Started,
    Text,
)
from .transfer import Transfer
from .version import VERSION as CLIENT_VERSION

__version__ = CLIENT_VERSION

__all__ = [
    "AnswerTimeout",
    "BadAnswer",
    "BadFile",
    "BadRequest",
    "Busy",
    "Cancelled",
    "CancelledEvent",
    "Choice",
    "Client",
    "ConnectionFailed",
    "ConnectionLost",
    "DeviceIO",
    "Done",
    "Event",
    "Failed",
    "Forbidden",
    "Hello",
    "InternalError",
    "Job",
    "JobLost",
    "LanceError",
    "ModelInfo",
    "NoMemory",
    "NotFound",
    "OfferedModel",
    "Paused",
    "Preview",
    "Progress",
    "Queued",
    "Result",
    "Sampling",
    "Started",
    "Text",
    "TooLarge",
    "Transfer",
    "Unsupported",
    "VersionMismatch",
    "default_endpoint",
]
