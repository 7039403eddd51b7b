/* nfc.h: Unicode normalisation form C in linear time. */
#ifndef LANCE_NFC_H
#define LANCE_NFC_H

#include <stddef.h>

#include "base/error.h"

/* Check that `text` is UTF-8 and bring it to NFC: *out is malloc'ed, NUL-terminated and the caller's. Errors:
 * ERROR_BAD_REQUEST (with the offset of the first byte that is not UTF-8), ERROR_NO_MEMORY. */
int nfc_normalise(const char *text, size_t length, char **out, size_t *out_length, struct error *error);

#endif
