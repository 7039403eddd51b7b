/* cpu.c: scratch memory, counting, and work spread over the threads; see cpu.h. */
#include "kernels/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

void *cpu_allocate(size_t bytes)
{
    if (bytes > SIZE_MAX - CACHE_LINE)
        return NULL;
    return aligned_alloc(CACHE_LINE, (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
}

void cpu_count(struct cpu *cpu, int64_t bytes)
{
    uint64_t now = atomic_fetch_add(&cpu->in_use, (uint64_t)bytes) + (uint64_t)bytes;
    if (now > atomic_load(&cpu->peak))
        atomic_store(&cpu->peak, now);
}

bool cpu_reserve(struct cpu *cpu, size_t floats, size_t shared)
{
    const size_t line = CACHE_LINE / sizeof(float);
    if (floats > cpu->scratch_floats) {
        floats = (floats + line - 1) / line * line;
        free(cpu->scratch);
        size_t bytes = floats * (size_t)pool_threads(cpu->pool) * sizeof(float);
        cpu->scratch = cpu_allocate(bytes);
        cpu->scratch_floats = cpu->scratch ? floats : 0;
        if (!cpu->scratch) {
            cpu->failed_bytes = bytes;
            return false;
        }
    }
    if (shared > cpu->shared_floats) {
        free(cpu->shared);
        cpu->shared = cpu_allocate(shared * sizeof(float));
        cpu->shared_floats = cpu->shared ? shared : 0;
        if (!cpu->shared) {
            cpu->failed_bytes = shared * sizeof(float);
            return false;
        }
    }
    return true;
}

struct piecewise {
    size_t n, piece;
    void (*body)(const void *context, size_t first, size_t count);
    const void *context;
};

static void piecewise_task(void *context, int index, int thread)
{
    const struct piecewise *p = context;
    (void)thread;
    size_t first = (size_t)index * p->piece;
    p->body(p->context, first, p->n - first < p->piece ? p->n - first : p->piece);
}

void cpu_for(struct cpu *cpu, size_t n, size_t piece, void (*body)(const void *context, size_t first, size_t count),
             const void *context)
{
    struct piecewise p = {.n = n, .piece = piece ? piece : 1, .body = body, .context = context};
    while ((n + p.piece - 1) / p.piece > 1 << 20)
        p.piece *= 2;
    pool_run(cpu->pool, (int)((n + p.piece - 1) / p.piece), piecewise_task, &p);
}
