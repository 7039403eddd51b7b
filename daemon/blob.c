/* blob.c: see blob.h. */
#include "daemon/blob.h"

#include <stdlib.h>

struct blob *blob_open(void *data, uint64_t bytes)
{
    struct blob *blob = malloc(sizeof *blob);
    if (blob == NULL) {
        free(data);
        return NULL;
    }
    atomic_init(&blob->references, 1);
    blob->data = data;
    blob->bytes = bytes;
    return blob;
}

struct blob *blob_share(struct blob *blob)
{
    atomic_fetch_add(&blob->references, 1);
    return blob;
}

void blob_close(struct blob *blob)
{
    if (blob == NULL || atomic_fetch_sub(&blob->references, 1) != 1)
        return;
    free(blob->data);
    free(blob);
}
