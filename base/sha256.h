/* sha256.h: the SHA-256 hash (FIPS 180-4). A context is plain memory of the caller; any thread. */
#ifndef LANCE_SHA256_H
#define LANCE_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHA256_HEX_BYTES = 65 }; /* lower-case hex digits and a terminating zero */

struct sha256 {
    uint32_t state[8];
    uint8_t block[64];
    size_t in_block;
    uint64_t bytes;
};

void sha256_start(struct sha256 *sha);
void sha256_add(struct sha256 *sha, const void *data, size_t bytes);
void sha256_finish(struct sha256 *sha, char hex[SHA256_HEX_BYTES]);

/* Of these bytes alone. */
void sha256_of(const void *data, size_t bytes, char hex[SHA256_HEX_BYTES]);

/* Whether `text` is a hash in 64 lower-case hex digits; NULL is not. */
bool sha256_is_hex(const char *text);

#endif
