/* operator-digests: what the CPU backend's operators give, as a hash each, to compare processors that are to give the
 * same bytes.
 *
 *   build/tests/operator-digests [portable|avx2|avx512]     default: the best in float32 that the processor has
 *
 * The first line is the backend's name, then a line "OPERATOR HASH" for each. Inputs are made up from a seed, in
 * integers, the same everywhere. `make arm64-digests` builds the same program for 64-bit ARM;
 * tests/e2e/test_neon.py compares.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/sha256.h"
#include "kernels/formats/numbers.h"
#include "kernels/kernels.h"

enum { COLUMNS = 150, DEPTH = 1408, PIXELS = 96, CHANNELS = 40, KEYS = 77, HEADS = 4, HEAD_DIM = 80 };

static uint32_t random_bits(void)
{
    static uint64_t state = 88172645463325252ull;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}

static void *memory_of(size_t bytes)
{
    void *memory = calloc(bytes, 1);
    if (!memory) {
        fprintf(stderr, "operator-digests: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return memory;
}

static float *random_floats(size_t n, float size)
{
    float *x = memory_of(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = size * (float)(int32_t)random_bits() / 2147483648.0f;
    return x;
}

static void *random_bytes(size_t n)
{
    uint8_t *bytes = memory_of(n);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (uint8_t)random_bits();
    return bytes;
}

static void *random_halves(size_t n, float size)
{
    float *values = random_floats(n, size);
    uint16_t *halves = memory_of(n * sizeof *halves);
    for (size_t i = 0; i < n; i++)
        halves[i] = float_to_bf16(values[i]);
    free(values);
    return halves;
}

__attribute__((format(printf, 3, 4))) static void print_digest(const float *values, size_t n, const char *name, ...)
{
    char hash[SHA256_HEX_BYTES];
    sha256_of(values, n * sizeof *values, hash);
    va_list arguments;
    va_start(arguments, name);
    vprintf(name, arguments);
    va_end(arguments);
    printf(" %.16s\n", hash);
}

/* Zeros of 0 to 15, scales of E4M3 that are numbers. */
static struct linear_source random_matrix(enum weight_format format, int group)
{
    const size_t weights = (size_t)COLUMNS * DEPTH, groups = weights / (size_t)group;
    struct linear_source s = {.format = format, .out_features = COLUMNS, .in_features = DEPTH, .group_size = group,
                              .tensor_scale = 1.0f, .bias_format = WEIGHT_F32};
    s.data = format == WEIGHT_F32    ? (void *)random_floats(weights, 0.05f)
             : format == WEIGHT_BF16 ? random_halves(weights, 0.05f)
                                     : random_bytes(weights);
    s.bias = random_floats(COLUMNS, 0.5f);
    if (!weight_is_quantised(format))
        return s;
    if (format == WEIGHT_NVFP4 && group == 16) {
        uint8_t *scales = random_bytes(groups);
        for (size_t i = 0; i < groups; i++)
            scales[i] &= 0x3f;
        s.scales_fp8 = scales;
        s.tensor_scale = 0.0123f;
    } else {
        s.scales = random_halves(groups, 0.01f);
    }
    if (weight_has_zeros(format)) {
        uint8_t *zeros = random_bytes(groups);
        for (size_t i = 0; i < groups; i++)
            zeros[i] &= 15;
        s.zeros = zeros;
    }
    if (weight_has_offsets(format))
        s.offsets = random_halves(groups, 0.1f);
    return s;
}

static void close_matrix(struct linear_source s)
{
    free((void *)s.data), free((void *)s.bias), free((void *)s.scales), free((void *)s.scales_fp8);
    free((void *)s.zeros), free((void *)s.offsets);
}

static void stop_unless_done(struct kernels *k, int code)
{
    struct error error = {0};
    if (!code)
        code = k->sync(k, &error);
    if (code) {
        fprintf(stderr, "operator-digests: %s\n", *error.text ? error.text : "an operator could not be opened");
        exit(1);
    }
}

static void products(struct kernels *k)
{
    static const struct {
        const char *name;
        enum weight_format format;
        int groups[3];
    } forms[] = {{"f32", WEIGHT_F32, {DEPTH}},
                 {"bf16", WEIGHT_BF16, {DEPTH}},
                 {"awq-int4", WEIGHT_AWQ_INT4, {128, 64, 32}},
                 {"mlx-int4", WEIGHT_MLX_INT4, {128, 64, 8}},
                 {"nvfp4", WEIGHT_NVFP4, {16, 32, 8}},
                 {"int8", WEIGHT_INT8, {128}},
                 {"awq-int8", WEIGHT_AWQ_INT8, {64}},
                 {"mlx-int8", WEIGHT_MLX_INT8, {64}}};
    static const int rows[] = {1, 2, 5, 6, 13, 48, 130};
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++)
        for (int g = 0; g < 3 && forms[f].groups[g]; g++) {
            const struct linear_source source = random_matrix(forms[f].format, forms[f].groups[g]);
            struct linear *w;
            stop_unless_done(k, k->linear_open(k, &w, &source, NULL));
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
                const size_t results = (size_t)rows[r] * COLUMNS;
                float *x = random_floats((size_t)rows[r] * DEPTH, 3.0f), *y = memory_of(results * sizeof *y);
                k->linear(k, w, (act *)x, rows[r], (act *)y, false);
                stop_unless_done(k, 0);
                print_digest(y, results, "product-%s-%d-rows-%d", forms[f].name, forms[f].groups[g], rows[r]);
                free(x), free(y);
            }
            k->linear_close(k, w);
            close_matrix(source);
        }
}

static void attention(struct kernels *k)
{
    enum { WIDTH = HEADS * HEAD_DIM, KEY_WIDTH = HEADS / 2 * HEAD_DIM };
    static const int rows[] = {1, 3, 40};
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        const size_t results = (size_t)rows[r] * WIDTH;
        float *q = random_floats(results, 2.0f), *out = memory_of(results * sizeof *out);
        float *keys = random_floats(KEYS * KEY_WIDTH, 2.0f), *values = random_floats(KEYS * KEY_WIDTH, 2.0f);
        struct attention problem = {.q = (act *)q, .q_rows = rows[r], .q_stride = WIDTH, .heads = HEADS,
                                    .kv_heads = HEADS / 2, .head_dim = HEAD_DIM, .scale = 0.11f, .causal = true,
                                    .segments = 1, .out = (act *)out, .out_stride = WIDTH};
        problem.segment[0].keys = (act *)keys;
        problem.segment[0].values = (act *)values;
        problem.segment[0].rows = KEYS;
        problem.segment[0].stride = KEY_WIDTH;
        k->attention(k, &problem, 1);
        stop_unless_done(k, 0);
        print_digest(out, results, "attention-rows-%d", rows[r]);
        free(q), free(out), free(keys), free(values);
    }
}

static void convolution(struct kernels *k)
{
    enum { FRAMES = 2, SIDE = 11, OUT_CHANNELS = 33, TAPS = 27 };
    const size_t pixels = (size_t)FRAMES * SIDE * SIDE, inputs = pixels * CHANNELS, results = pixels * OUT_CHANNELS;
    float *x = random_floats(inputs, 1.0f), *past = random_floats(inputs, 1.0f), *y = memory_of(results * sizeof *y);
    float *weight = random_floats((size_t)OUT_CHANNELS * CHANNELS * TAPS, 0.1f), *bias = random_floats(OUT_CHANNELS, 1);
    const struct conv_source source = {.format = WEIGHT_F32, .out_channels = OUT_CHANNELS, .in_channels = CHANNELS,
                                       .kernel_t = 3, .kernel_h = 3, .kernel_w = 3, .weight = weight, .bias = bias};
    struct conv *conv;
    stop_unless_done(k, k->conv_open(k, &conv, &source, NULL));
    for (int past_frames = 0; past_frames <= 2; past_frames += 2) {
        k->conv(k, conv, &(struct conv_call){.x = (act *)x, .past = past_frames ? (act *)past : NULL,
                                             .past_frames = past_frames, .frames = FRAMES, .height = SIDE,
                                             .width = SIDE, .stride_t = 1, .stride_h = 1, .stride_w = 1, .pad_top = 1,
                                             .pad_bottom = 1, .pad_left = 1, .pad_right = 1, .out = (act *)y});
        stop_unless_done(k, 0);
        print_digest(y, results, "convolution-past-%d", past_frames);
    }
    k->conv_close(k, conv);
    free(x), free(past), free(y), free(weight), free(bias);
}

static void rows_of_numbers(struct kernels *k)
{
    const size_t n = (size_t)PIXELS * CHANNELS;
    float *x = random_floats(n, 6.0f), *other = random_floats(n, 6.0f), *y = memory_of(n * sizeof *y);
    for (int width = CHANNELS - 3; width <= CHANNELS; width += 3) {
        k->rms_norm(k, (act *)x, PIXELS, width, (param *)other, 1e-6f, (act *)y);
        print_digest(y, (size_t)(PIXELS * width), "rms-norm-%d", width);
    }
    for (int silu = 0; silu <= 1; silu++) {
        k->channel_norm(k, (act *)x, PIXELS, CHANNELS, (param *)other, silu, (act *)y);
        print_digest(y, n, "channel-norm-%d", silu);
    }
    k->swiglu(k, (act *)x, (act *)other, n, (act *)y);
    print_digest(y, n, "swiglu");
    k->silu(k, (act *)x, n - 3, (act *)y);
    print_digest(y, n - 3, "silu");
    const struct head_part part = {.x = (act *)x, .rows = PIXELS / 2, .stride = 2 * CHANNELS, .heads = 2,
                                   .weight = (param *)other, .cosines = (param *)other,
                                   .sines = (param *)(other + n / 2)};
    k->head_norm_rope(k, &part, 1, CHANNELS, 1e-6f);
    print_digest(x, n, "head-norm-rope");
    stop_unless_done(k, 0);
    free(x), free(other), free(y);
}

int main(int argc, char **argv)
{
    enum cpu_level level = CPU_AUTO;
    if (argc > 1)
        level = !strcmp(argv[1], "portable") ? CPU_PORTABLE : !strcmp(argv[1], "avx2") ? CPU_AVX2 : CPU_AVX512;
    struct kernels *k;
    struct error error = {0};
    if (kernels_cpu_open(&k, 2, level, &error)) {
        fprintf(stderr, "operator-digests: %s\n", error.text);
        return 1;
    }
    printf("%s\n", k->name);
    products(k);
    attention(k);
    convolution(k);
    rows_of_numbers(k);
    k->close(k);
    return 0;
}
