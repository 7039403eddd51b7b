/* host_memory.h: host buffers of a job, whose failure is a message. */
#ifndef LANCE_HOST_MEMORY_H
#define LANCE_HOST_MEMORY_H

#include <stdint.h>
#include <stdlib.h>

#include "base/error.h"

/* `bytes` of host memory, zeroed; free() them. NULL where *code is an error already or becomes ERROR_NO_MEMORY. */
static inline void *host_alloc(uint64_t bytes, const char *what, int *code, struct error *error)
{
    if (*code)
        return NULL;
    void *memory = calloc(1, bytes ? (size_t)bytes : 1);
    if (!memory)
        *code = error_set(error, ERROR_NO_MEMORY, "no memory for %s (%llu bytes)", what, (unsigned long long)bytes);
    return memory;
}

#endif
