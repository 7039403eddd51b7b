/* backend.c: see backend.h. */
#include "kernels/backend.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/plugin.h"

static int find(const char *name, const char *const *names, int count)
{
    for (int i = 0; i < count; i++)
        if (!strcmp(name, names[i]))
            return i;
    return -1;
}

int backend_of(const char *name)
{
    return find(name, (const char *const[]){"auto", "cpu", "cuda"}, 3);
}

int isa_of(const char *name)
{
    static const char *const names[] = {
        "auto", "portable", "avx2", "avx512", "avx512-bf16", "amx", "avx512-bf16-emulated", "amx-emulated"};
    return find(name, names, sizeof names / sizeof *names);
}

int precision_of(const char *name)
{
    const int found = find(name, (const char *const[]){"float32", "bf16", "auto"}, 3);
    return found < 0 ? found : found + PRECISION_FLOAT32;
}

/* Products in AVX512-BF16 run at twice the rate of float32 ones on some processors and at the same rate on others, and
 * nothing but a measurement tells which: --precision auto takes them from this many times on. */
static const double worthwhile_gain = 1.5;

/* Of the calling thread alone: what else the machine does hardly shows. */
static double processor_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Processor seconds of a product, the best of a few rounds on each backend in turn; 0 without memory for it. */
static void time_products(struct kernels *const k[2], const struct linear_source *source, int rows, double seconds[2])
{
    enum { ROUNDS = 8 }; /* the first one warms up */
    struct linear *w[2] = {NULL, NULL};
    void *x[2] = {NULL, NULL}, *y[2] = {NULL, NULL};
    bool ready = true;
    for (int i = 0; i < 2; i++) {
        const size_t inputs = (size_t)rows * (size_t)source->in_features;
        const size_t outputs = (size_t)rows * (size_t)source->out_features;
        ready = ready && !k[i]->linear_open(k[i], &w[i], source, NULL) &&
                !k[i]->memory_alloc(k[i], &x[i], inputs * k[i]->act_bytes, NULL) &&
                !k[i]->memory_alloc(k[i], &y[i], outputs * k[i]->act_bytes, NULL);
        if (ready)
            k[i]->zero(k[i], x[i], inputs);
        seconds[i] = ready ? 1e9 : 0.0;
    }
    for (int round = 0; ready && round < ROUNDS; round++)
        for (int i = 0; i < 2; i++) {
            const double start = processor_seconds();
            k[i]->linear(k[i], w[i], x[i], rows, y[i], false);
            const double took = processor_seconds() - start;
            if (round > 0 && took < seconds[i])
                seconds[i] = took;
        }
    for (int i = 0; i < 2; i++) {
        k[i]->memory_free(k[i], y[i]);
        k[i]->memory_free(k[i], x[i]);
        k[i]->linear_close(k[i], w[i]);
    }
}

/* How many times as fast products of the bf16 form are as those of the best float32 form; 0 where one of them is not
 * there. Both run on one thread, which is the caller, since its time is what is measured. */
static double product_gain(enum cpu_level bf16)
{
    enum { ROWS = 128, WIDTH = 512 };
    double seconds[2] = {0.0, 0.0};
    struct kernels *k[2] = {NULL, NULL};
    void *weights = calloc((size_t)WIDTH * WIDTH, sizeof(uint16_t));
    if (weights && !kernels_cpu_open(&k[0], 1, CPU_AUTO, NULL) && !kernels_cpu_open(&k[1], 1, bf16, NULL)) {
        const struct linear_source source = {.format = WEIGHT_BF16, .out_features = WIDTH, .in_features = WIDTH,
                                             .data = weights, .tensor_scale = 1.0f};
        time_products(k, &source, ROWS, seconds);
    }
    for (int i = 0; i < 2; i++)
        if (k[i])
            k[i]->close(k[i]);
    free(weights);
    return seconds[1] > 0.0 ? seconds[0] / seconds[1] : 0.0;
}

/* The best form in bf16 within the limit; with AUTO only one that is worth it. */
static int open_bf16(struct kernels **out, const struct backend_options *options, enum isa isa, struct error *error)
{
    if (isa == ISA_AVX512_BF16_EMULATED)
        return kernels_cpu_open(out, options->threads, CPU_AVX512_BF16_EMULATED, error);
    if (isa == ISA_AMX_EMULATED)
        return kernels_cpu_open(out, options->threads, CPU_AMX_BF16_EMULATED, error);
    if (isa != ISA_AUTO && isa < ISA_AVX512_BF16)
        return error_set(error, ERROR_BAD_REQUEST, "bf16 on the CPU needs AMX or AVX512-BF16, which the limit of its "
                         "instruction set (--isa, LANCED_ISA) leaves out");
    int code =
        isa == ISA_AVX512_BF16 ? ERROR_UNSUPPORTED : kernels_cpu_open(out, options->threads, CPU_AMX_BF16, error);
    if (code == ERROR_UNSUPPORTED && options->precision == PRECISION_BF16) {
        struct error second;
        code = kernels_cpu_open(out, options->threads, CPU_AVX512_BF16, &second);
        if (code && isa == ISA_AVX512_BF16)
            *error = second;
        else if (code)
            error_prefix(error, "no bf16 on the CPU: %s, and", second.text);
    } else if (code == ERROR_UNSUPPORTED && product_gain(CPU_AVX512_BF16) >= worthwhile_gain)
        code = kernels_cpu_open(out, options->threads, CPU_AVX512_BF16, error);
    return code;
}

/* The best form of the CPU backend within the limit that this processor has. */
static int open_cpu(struct kernels **out, const struct backend_options *options, struct error *error)
{
    static const enum cpu_level levels[] = {CPU_AUTO, CPU_PORTABLE, CPU_AVX2, CPU_AVX512};
    const char *name = getenv("LANCED_ISA");
    int isa = (int)options->isa;
    if (isa == ISA_AUTO && name && *name && (isa = isa_of(name)) < 0)
        return error_set(error, ERROR_BAD_REQUEST, "LANCED_ISA must be " ISA_NAMES ", not \"%.40s\"", name);
    if (options->precision == PRECISION_BF16 || options->precision == PRECISION_AUTO) {
        int code = open_bf16(out, options, (enum isa)isa, error);
        if (code == 0 || options->precision == PRECISION_BF16)
            return code;
    }
    isa = isa > ISA_AVX512 ? ISA_AVX512 : isa;
    int code = kernels_cpu_open(out, options->threads, levels[isa], error);
    while (code == ERROR_UNSUPPORTED && --isa >= ISA_PORTABLE)
        code = kernels_cpu_open(out, options->threads, levels[isa], error);
    return code;
}

int backend_open(struct kernels **out, const struct backend_options *options, struct error *why_not_cuda,
                 struct error *error)
{
    struct error unwanted;
    struct error *why = why_not_cuda ? why_not_cuda : &unwanted;
    *why = (struct error){0};
    if (options->backend == BACKEND_CUDA)
        return kernels_cuda_load(out, 0, error);
    if (options->backend == BACKEND_AUTO && kernels_cuda_load(out, 0, why) == 0)
        return 0;
    return open_cpu(out, options, error);
}

double backend_bf16_gain(struct kernels *k, const struct backend_options *options)
{
    if (!k->host_memory || options->precision != PRECISION_DEFAULT || options->isa != ISA_AUTO || getenv("LANCED_ISA"))
        return 0.0;
    double gain = product_gain(CPU_AMX_BF16);
    if (gain == 0.0)
        gain = product_gain(CPU_AVX512_BF16);
    return gain >= worthwhile_gain ? gain : 0.0;
}
