/* cpu.c: opening the CPU backend, its memory and the transfers; see cpu.h. */
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

static void cpu_upload(struct kernels *k, act *to, const float *from, size_t n)
{
    (void)k;
    copy_floats(to, from, n);
}

static void cpu_download(struct kernels *k, float *to, const act *from, size_t n)
{
    (void)k;
    copy_floats(to, from, n);
}

static void cpu_param_upload(struct kernels *k, param *to, const float *from, size_t n)
{
    (void)k;
    copy_floats(to, from, n);
}

static void cpu_param_download(struct kernels *k, float *to, const param *from, size_t n)
{
    (void)k;
    copy_floats(to, from, n);
}

static void cpu_param_to_act(struct kernels *k, act *to, const param *from, size_t n)
{
    (void)k;
    copy_floats(to, from, n);
}

static void cpu_copy(struct kernels *k, act *to, const act *from, size_t n)
{
    (void)k;
    copy_floats(to, from, n);
}

static void cpu_zero(struct kernels *k, act *to, size_t n)
{
    (void)k;
    if (n)
        memset(to, 0, n * sizeof(float));
}

/* Nothing is gained by recording: operators run at once. */
static void cpu_graph_run(struct kernels *k, struct graph **graph, int piece, void (*work)(void *context), void *context)
{
    (void)k, (void)graph, (void)piece;
    work(context);
}

static void cpu_graph_close(struct kernels *k, struct graph *graph)
{
    (void)k, (void)graph;
}

static void cpu_watch(struct kernels *k, const atomic_bool *cancelled)
{
    cpu_of(k)->cancelled = cancelled;
    pool_watch(cpu_of(k)->pool, cancelled);
}

static int cpu_sync(struct kernels *k, struct error *error)
{
    struct cpu *cpu = cpu_of(k);
    size_t failed = cpu->failed_bytes;
    cpu->failed_bytes = 0; /* whatever is answered: the next job has nothing to do with it */
    if (cpu->cancelled && atomic_load(cpu->cancelled))
        return error_set(error, ERROR_CANCELLED, "cancelled");
    if (failed)
        return error_set(error, ERROR_NO_MEMORY, "cpu backend: no memory for %zu bytes of working space", failed);
    return 0;
}

static void cpu_close(struct kernels *k)
{
    if (!k)
        return;
    struct cpu *cpu = cpu_of(k);
    pool_close(cpu->pool);
    free(cpu->scratch);
    free(cpu->shared);
    free(cpu);
}

/* What the level adds to float32; *loops is NULL where it adds nothing. */
static int bf16_of(const struct bf16_loops **loops, enum cpu_level level, struct error *error)
{
    *loops = NULL;
    switch (level) {
    case CPU_AVX512_BF16: return (*loops = bf16_avx512(error)) ? 0 : ERROR_UNSUPPORTED;
    case CPU_AMX_BF16: return (*loops = bf16_amx(error)) ? 0 : ERROR_UNSUPPORTED;
    case CPU_AVX512_BF16_EMULATED: *loops = bf16_plain_avx512(); return 0;
    case CPU_AMX_BF16_EMULATED: *loops = bf16_plain_amx(); return 0;
    default: return 0;
    }
}

/* NULL, with an error, when the processor lacks what the level needs. */
static const struct micro *micro_of(enum cpu_level level, struct error *error)
{
    const struct micro *micro = NULL;
    switch (level) {
    case CPU_PORTABLE: return micro_portable();
    case CPU_AVX2:
        if (!(micro = micro_avx2()))
            error_set(error, ERROR_UNSUPPORTED, "this processor has no AVX2, FMA and F16C");
        return micro;
    case CPU_AVX512:
        if (!(micro = micro_avx512()))
            error_set(error, ERROR_UNSUPPORTED, "this processor has no AVX-512 with BW, DQ, VL and VNNI");
        return micro;
    default: break;
    }
    if (!(micro = micro_avx512()))
        micro = micro_avx2();
    return micro ? micro : micro_portable();
}

int kernels_cpu_open(struct kernels **out, int threads, enum cpu_level level, struct error *error)
{
    *out = NULL;
    const struct micro *micro = micro_of(level, error);
    const struct bf16_loops *bf16;
    if (!micro || bf16_of(&bf16, level, error))
        return ERROR_UNSUPPORTED;
    struct cpu *cpu = calloc(1, sizeof *cpu);
    if (!cpu)
        return error_set(error, ERROR_NO_MEMORY, "no memory for the CPU backend");
    cpu->micro = micro;
    cpu->bf16 = bf16;
    cpu->pool = pool_open(threads);
    if (!cpu->pool) {
        free(cpu);
        if (threads == 0)
            return error_set(error, ERROR_NO_MEMORY, "cannot start a thread per core for the CPU backend; see --threads");
        return error_set(error, ERROR_NO_MEMORY, "cannot start %d threads for the CPU backend", threads);
    }
    struct kernels *k = &cpu->kernels;
    *k = (struct kernels){
        .name = bf16 ? bf16->name : micro->name,
        .rounds = bf16 != NULL,
        .act_bytes = sizeof(float),
        .host_memory = true,
        .state = cpu,
        .close = cpu_close,
        .memory_alloc = cpu_memory_alloc,
        .memory_free = cpu_memory_free,
        .memory_in_use = cpu_memory_in_use,
        .memory_peak = cpu_memory_peak,
        .memory_available = cpu_memory_available,
        .upload = cpu_upload,
        .download = cpu_download,
        .param_upload = cpu_param_upload,
        .param_download = cpu_param_download,
        .param_to_act = cpu_param_to_act,
        .copy = cpu_copy,
        .zero = cpu_zero,
        .sync = cpu_sync,
        .watch = cpu_watch,
        .graph_run = cpu_graph_run,
        .graph_close = cpu_graph_close,
    };
    cpu_linear_fill(k);
    cpu_attention_fill(k);
    cpu_conv_fill(k);
    cpu_elementwise_fill(k);
    cpu_resample_fill(k);
    *out = k;
    return 0;
}
