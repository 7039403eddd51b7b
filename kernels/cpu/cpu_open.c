/* cpu_open.c: opening the CPU backend in the form that is wanted, or the best that the processor has. */
#include <stdlib.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/operators.h"

/* Nothing is gained by recording: operators run at once. */
static void cpu_graph_run(struct kernels *k, struct graph **graph, int piece, void (*work)(void *context),
                          void *context)
{
    (void)k, (void)graph, (void)piece;
    work(context);
}

static void cpu_graph_close(struct kernels *k, struct graph *graph)
{
    (void)k, (void)graph;
}

static void cpu_graph_grows(struct kernels *k, const void *memory, size_t bytes, int rows)
{
    (void)k, (void)memory, (void)bytes, (void)rows;
}

static void cpu_watch(struct kernels *k, const atomic_bool *cancelled)
{
    pool_watch(cpu_of(k)->pool, cancelled);
}

static int cpu_sync(struct kernels *k, struct error *error)
{
    struct cpu *cpu = cpu_of(k);
    size_t failed = cpu->failed_bytes;
    cpu->failed_bytes = 0; /* whatever is answered: the next job has nothing to do with it */
    if (pool_is_cancelled(cpu->pool))
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
        if (!(micro = micro_avx2()) && !(micro = micro_neon()))
            error_set(error, ERROR_UNSUPPORTED, "this processor has no AVX2, FMA and F16C");
        return micro;
    case CPU_AVX512:
        if (!(micro = micro_avx512()))
            error_set(error, ERROR_UNSUPPORTED, "this processor has no AVX-512 with BW, DQ, VL and VNNI");
        return micro;
    default: break;
    }
    if (!(micro = micro_avx512()) && !(micro = micro_avx2()))
        micro = micro_neon();
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
            return error_set(error, ERROR_NO_MEMORY,
                             "cannot start a thread per core for the CPU backend; see --threads");
        return error_set(error, ERROR_NO_MEMORY, "cannot start %d threads for the CPU backend", threads);
    }
    struct kernels *k = &cpu->kernels;
    *k = (struct kernels){
        .name = bf16 ? bf16->name : micro->name,
        .rounds = bf16 != NULL,
        .act_bytes = sizeof(float),
        .rows_alone = true,
        .host_memory = true,
        .state = cpu,
        .close = cpu_close,
        .sync = cpu_sync,
        .watch = cpu_watch,
        .graph_run = cpu_graph_run,
        .graph_close = cpu_graph_close,
        .graph_grows = cpu_graph_grows,
    };
    cpu_memory_fill(k);
    cpu_linear_fill(k);
    cpu_attention_fill(k);
    cpu_conv_fill(k);
    cpu_elementwise_fill(k);
    cpu_resample_fill(k);
    *out = k;
    return 0;
}
