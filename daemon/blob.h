/* blob.h: bytes that several threads read and the last one frees, such as a job's encoded
 * result: the job table keeps it while a context copies it into an answer.
 */
#ifndef LANCE_BLOB_H
#define LANCE_BLOB_H

#include <stdatomic.h>
#include <stdint.h>

struct blob {
    atomic_int references;
    void *data;
    uint64_t bytes;
};

/* Take over the malloc'ed `data`; one reference. NULL when out of memory: `data` is freed then. */
struct blob *blob_open(void *data, uint64_t bytes);

struct blob *blob_share(struct blob *blob); /* one more reference; returns blob */
void blob_close(struct blob *blob);         /* one less; NULL is allowed */

#endif
