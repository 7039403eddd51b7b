/* identity.h: one name for all that a model is: SHA-256 over every byte of its files.
 *
 * Hashing goes on beside loading, in up to four threads of its own, which read the files and nothing else;
 * identity_wait ends them. What large files came to is kept in a folder, under device, inode, size and
 * times, so that it is done once.
 *
 * The name is the SHA-256 of one line for each file, "ROLE HASH\n", HASH being what sha256sum prints for the file.
 */
#ifndef LANCE_IDENTITY_H
#define LANCE_IDENTITY_H

#include "base/error.h"

struct identity;

/* Nothing is read yet. `cache_folder` exists, or is NULL: nothing is kept. ERROR_NO_MEMORY. */
int identity_open(struct identity **out, const char *cache_folder, struct error *error);

/* A file by what it is for the model ("vae"); it is opened now, and hashed as it is now.
 * ERROR_BAD_FILE, ERROR_NO_MEMORY. */
int identity_add(struct identity *identity, const char *role, const char *path, struct error *error);

/* Begin to hash. Without threads to be had identity_wait does it. */
void identity_start(struct identity *identity);

/* Wait for the name. ERROR_BAD_FILE for a file that changed meanwhile, ERROR_IO, ERROR_NO_MEMORY. */
int identity_wait(struct identity *identity, char hex[65], struct error *error);

void identity_close(struct identity *identity); /* soon, if it is still being done; NULL is allowed */

#endif
