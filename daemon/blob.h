/* blob.h: bytes that several threads read and the last one frees, such as a job's encoded
 * result: the job table keeps it while a context copies it into an answer.
 */
#ifndef LANCE_BLOB_H
#define LANCE_BLOB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/sha256.h"

enum { BLOB_NAME_BYTES = SHA256_HEX_BYTES };

struct blob {
    atomic_int references;
    void *data;
    uint64_t bytes;
    char sha256[SHA256_HEX_BYTES]; /* of the bytes; "": nobody has hashed them */
};

#define BLOB_NAME_RULE "a SHA-256, 64 lower-case hexadecimal digits, or \"put-\" and 1 to 60 of A-Z a-z 0-9 . _ -"

/* Whether clients may call a blob that, with less than BLOB_NAME_BYTES: the SHA-256 of its bytes, or "put-" and what
 * they like, for bytes that they have not hashed. NULL is no name. */
bool blob_name_is_right(const char *name);

/* Take over the malloc'ed `data`; one reference. NULL when out of memory: `data` is freed then. */
struct blob *blob_open(void *data, uint64_t bytes);

/* A blob of `bytes` bytes, more than 0, that are still to be written; one reference. NULL when out of memory. */
struct blob *blob_make(uint64_t bytes);

struct blob *blob_share(struct blob *blob); /* one more reference; returns blob */
void blob_close(struct blob *blob);         /* one less; NULL is allowed */

#endif
