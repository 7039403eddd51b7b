/* version.h: the version of this release and of the wire protocol it speaks. */
#ifndef LANCE_VERSION_H
#define LANCE_VERSION_H

#define LANCED_VERSION "0.1.0"

/* Raised when an old client or daemon could misunderstand a new one; see PROTOCOL.md. */
enum { PROTOCOL_VERSION = 1 };

#endif
