/* version.h: the version of this release and of the wire protocol it speaks. They stand here alone; `make version`
 * writes them to where no header can be read: the Python client's version.py, and the
 * pyproject.toml of the node pack and of lance-farm. */
#ifndef LANCE_VERSION_H
#define LANCE_VERSION_H

#define LANCED_VERSION "0.1.0"

/* Raised when an old client or daemon could misunderstand a new one; see PROTOCOL.md. */
enum { PROTOCOL_VERSION = 2 };

#endif
