/* zip.h: finding the entries of a zip archive that lies in memory.
 *
 * Only what torch.save() writes: entries that are stored, not compressed, with or without
 * the zip64 extension. Everything is range-checked; entry data is handed out where it
 * lies, without copying. The archive borrows the caller's memory. Immutable after
 * opening; any thread may read it.
 */
#ifndef LANCE_ZIP_H
#define LANCE_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct zip_entry {
    const char *name; /* name_bytes long, not terminated */
    size_t name_bytes;
    const uint8_t *data;
    uint64_t bytes;
    uint32_t crc32;   /* as the archive states it; not checked here */
};

struct zip;

/* `what` names the archive in messages. Errors: ERROR_BAD_FILE, ERROR_NO_MEMORY. */
int zip_open(struct zip **out, const uint8_t *data, uint64_t bytes, const char *what, struct error *error);
void zip_close(struct zip *zip); /* NULL is allowed */

size_t zip_count(const struct zip *zip);
const struct zip_entry *zip_at(const struct zip *zip, size_t index); /* sorted by name */
const struct zip_entry *zip_find(const struct zip *zip, const char *name, size_t name_bytes); /* or NULL */

#endif
