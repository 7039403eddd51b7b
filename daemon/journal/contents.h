/* contents.h: files named by the SHA-256 of their bytes, in the folder "contents" of a state folder.
 *
 * A file is written under another name, fsynced, and renamed: it is there whole or not at all. Its name lasts once
 * contents_sync has returned. Whether a file is still needed its owner knows (store.h). One thread at a time writes;
 * any thread may read.
 */
#ifndef LANCE_CONTENTS_H
#define LANCE_CONTENTS_H

#include <stdint.h>

#include "base/error.h"
#include "base/sha256.h"

struct contents;

/* Open the folder under `parent`, making it if need be, and take away what was being written when a daemon ended. */
int contents_open(struct contents **out, int parent, struct error *error);
void contents_close(struct contents *contents); /* NULL is allowed */

/* Write a file, in place of one of that name. ERROR_IO. */
int contents_write(struct contents *contents, const char *hash, const void *data, uint64_t bytes, struct error *error);

/* Have the names of the files that were written last, if there are any. ERROR_IO. */
int contents_sync(struct contents *contents, struct error *error);

/* Take a file away; one that is not there, or cannot be called so, is no error. */
void contents_remove(struct contents *contents, const char *hash);

/* All bytes of a file, malloc'ed. ERROR_BAD_FILE: missing, of another size or no hash; ERROR_IO, ERROR_NO_MEMORY. */
int contents_read(struct contents *contents, const char *hash, uint64_t bytes, void **data, struct error *error);

/* Call each(context, hash, bytes) for every file. ERROR_IO, or what `each` returned other than 0. */
int contents_each(struct contents *contents, int (*each)(void *context, const char *hash, uint64_t bytes),
                  void *context, struct error *error);

#endif
