/* memory.c: the CPU backend's device memory, which is the host's, and transfers to and from it. */
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/operators.h"

/* A block from memory_alloc: its size stands in the cache line before it. */
static int cpu_memory_alloc(struct kernels *k, void **out, size_t bytes, struct error *error)
{
    *out = NULL;
    if (!bytes)
        return 0;
    char *block = bytes < SIZE_MAX - 2 * CACHE_LINE ? cpu_allocate(bytes + CACHE_LINE) : NULL;
    if (!block)
        return error_set(error, ERROR_NO_MEMORY, "no memory for %zu bytes; free some, or ask for less", bytes);
    memcpy(block, &bytes, sizeof bytes);
    cpu_count(cpu_of(k), (int64_t)bytes);
    *out = block + CACHE_LINE;
    return 0;
}

static void cpu_memory_free(struct kernels *k, void *memory)
{
    if (!memory)
        return;
    char *block = (char *)memory - CACHE_LINE;
    size_t bytes;
    memcpy(&bytes, block, sizeof bytes);
    cpu_count(cpu_of(k), -(int64_t)bytes);
    free(block);
}

static uint64_t cpu_memory_in_use(struct kernels *k)
{
    return atomic_load(&cpu_of(k)->in_use);
}

static uint64_t cpu_memory_peak(struct kernels *k)
{
    return atomic_load(&cpu_of(k)->peak);
}

static uint64_t cpu_memory_available(struct kernels *k)
{
    (void)k;
    return 0;
}

static void copy_floats(void *to, const void *from, size_t n)
{
    if (n && to != from)
        memcpy(to, from, n * sizeof(float));
}

/* Both sides of a transfer are the host's float32. */
#define COPY_OPERATOR(name, to_type, from_type)                                                                        \
    static void name(struct kernels *k, to_type *to, const from_type *from, size_t n)                                  \
    {                                                                                                                  \
        (void)k;                                                                                                       \
        copy_floats(to, from, n);                                                                                      \
    }
COPY_OPERATOR(cpu_upload, act, float)
COPY_OPERATOR(cpu_download, float, act)
COPY_OPERATOR(cpu_param_upload, param, float)
COPY_OPERATOR(cpu_param_download, float, param)
COPY_OPERATOR(cpu_param_to_act, act, param)
COPY_OPERATOR(cpu_copy, act, act)

static void cpu_zero(struct kernels *k, act *to, size_t n)
{
    (void)k;
    if (n)
        memset(to, 0, n * sizeof(float));
}

void cpu_memory_fill(struct kernels *k)
{
    k->memory_alloc = cpu_memory_alloc;
    k->memory_free = cpu_memory_free;
    k->memory_in_use = cpu_memory_in_use;
    k->memory_peak = cpu_memory_peak;
    k->memory_available = cpu_memory_available;
    k->upload = cpu_upload;
    k->download = cpu_download;
    k->param_upload = cpu_param_upload;
    k->param_download = cpu_param_download;
    k->param_to_act = cpu_param_to_act;
    k->copy = cpu_copy;
    k->zero = cpu_zero;
}
