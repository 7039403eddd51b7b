/* cpu.h: what the files of the CPU backend share: the instance and its scratch memory.
 *
 * Every operator runs on the caller's thread, splits its work over the pool and returns
 * when it is done. An operator that cannot get scratch memory notes the failure, which
 * sync() then reports.
 */
#ifndef LANCE_CPU_CPU_H
#define LANCE_CPU_CPU_H

#include <stdatomic.h>

#include "kernels/cpu/bf16.h"
#include "kernels/cpu/micro.h"
#include "kernels/cpu/pool.h"
#include "kernels/kernels.h"

struct cpu {
    struct kernels kernels; /* first, so that a struct kernels * is a struct cpu * */
    struct pool *pool;
    const struct micro *micro;
    const struct bf16_loops *bf16; /* NULL: products run in float32 */
    _Atomic uint64_t in_use, peak;

    float *scratch;         /* one piece per thread, see cpu_reserve */
    size_t scratch_floats;  /* of one thread */
    float *shared;          /* read by all threads while an operator runs */
    size_t shared_floats;
    size_t failed_bytes;    /* a scratch allocation that failed since the last sync, or 0 */
};

static inline struct cpu *cpu_of(struct kernels *k)
{
    return (struct cpu *)k;
}

/* Activations and parameters are plain float32 here. */
static inline float *floats(const void *memory)
{
    return (float *)(uintptr_t)memory;
}

/* Make sure of `floats` of scratch for every thread, and of `shared` floats; false when there is no memory. What
 * was in them is lost. */
bool cpu_reserve(struct cpu *cpu, size_t floats, size_t shared);
static inline float *cpu_scratch(const struct cpu *cpu, int thread)
{
    return cpu->scratch + (size_t)thread * cpu->scratch_floats;
}

/* Count memory that an object holds (negative: gives back). */
void cpu_count(struct cpu *cpu, int64_t bytes);

/* 64-byte aligned memory of the system, not counted. NULL when there is none. */
void *cpu_allocate(size_t bytes);

/* Run body(context, first, count) over [0, n) in pieces of about `piece` elements. */
void cpu_for(struct cpu *cpu, size_t n, size_t piece, void (*body)(const void *context, size_t first, size_t count),
             const void *context);

#endif
