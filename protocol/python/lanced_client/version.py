"""The version of this release and of the wire protocol, as protocol/version.h has them; `make version` writes them."""

VERSION = "0.1.0"
PROTOCOL_VERSION = 2
