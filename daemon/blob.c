/* blob.c: see blob.h. */
#include "daemon/blob.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "protocol/message.h"

enum { LARGE_PAGE_BYTES = 2 << 20 };

struct blob *blob_open(void *data, uint64_t bytes)
{
    struct blob *blob = malloc(sizeof *blob);
    if (!blob) {
        free(data);
        return NULL;
    }
    atomic_init(&blob->references, 1);
    blob->data = data;
    blob->bytes = bytes;
    blob->sha256[0] = '\0';
    return blob;
}

bool blob_name_is_right(const char *name)
{
    static const char chosen[] = "put-";
    return sha256_is_hex(name) ||
           (job_id_is_valid(name) && strlen(name) > strlen(chosen) && strncmp(name, chosen, strlen(chosen)) == 0);
}

/* In the system's large pages, where it has them and they are filled: small ones, mapped and cleared one by one as the
 * bytes come, take longer than the bytes themselves. */
struct blob *blob_make(uint64_t bytes)
{
    void *data;
    if (bytes < LARGE_PAGE_BYTES) {
        data = malloc(bytes);
    } else if (posix_memalign(&data, LARGE_PAGE_BYTES, bytes) != 0) {
        data = NULL;
    } else {
        madvise(data, bytes - bytes % LARGE_PAGE_BYTES, MADV_HUGEPAGE); /* a wish: nothing is lost without */
    }
    return data ? blob_open(data, bytes) : NULL;
}

struct blob *blob_share(struct blob *blob)
{
    atomic_fetch_add(&blob->references, 1);
    return blob;
}

void blob_close(struct blob *blob)
{
    if (!blob || atomic_fetch_sub(&blob->references, 1) != 1)
        return;
    free(blob->data);
    free(blob);
}
