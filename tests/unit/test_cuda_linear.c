/* Matrices of the CUDA backend beside the CPU's.
 *
 * What the CPU multiplies with is what the card is documented to: the checkpoint's exact weights where a card's are
 * exact (few and some rows of AWQ and NVFP4), the weights rounded to bf16 where it decodes or keeps them so. Then only
 * the order of the float32 sums and the rounding of the result differ. */
#include "tests/unit/cuda_fixture.h"
#include "tests/unit/matrix_fixture.h"

enum { FEW_ROWS = 16, SOME_ROWS = 128 };

/* One rounding of the result, and float32 sums in another order. */
#define LIMIT (1.02 * BF16_ROUNDING)

static float tenth(int i)
{
    return bf16_to_float(float_to_bf16((float)(i % 19) * 0.1f - 0.9f));
}

/* The same matrix with each weight rounded to bf16. */
static struct linear_source rounded(const struct matrix *m, uint16_t *values)
{
    struct linear_source s = m->source;
    for (size_t i = 0; i < (size_t)s.out_features * (size_t)s.in_features; i++)
        values[i] = float_to_bf16((float)m->values[i]);
    s.format = WEIGHT_BF16;
    s.data = values;
    s.scales = s.scales_fp8 = s.offsets = NULL;
    s.zeros = NULL;
    return s;
}

struct product_shape {
    enum weight_format format;
    int out, in, group;
    bool fp8;
};

/* Up to so many rows 4-bit codes are not decoded first. */
static int codes_up_to = SOME_ROWS;

/* A second backend, on a card of so many bytes (NULL: as many as the first), that decodes matrices for all but few
 * rows; until close_decoding. */
static struct pair open_decoding(const struct pair *p, const char *memory_bytes)
{
    struct pair own = *p;
    struct error error = {0};
    codes_up_to = FEW_ROWS;
    assert_int_equal(setenv("LANCED_CUDA_SOME_ROWS", "16", 1), 0);
    if (memory_bytes)
        assert_int_equal(setenv("LANCED_EMULATION_MEMORY", memory_bytes, 1), 0);
    if (kernels_cuda_load(&own.cuda, 0, &error))
        fail_msg("%s", error.text);
    assert_int_equal(unsetenv("LANCED_EMULATION_MEMORY"), 0);
    assert_int_equal(unsetenv("LANCED_CUDA_SOME_ROWS"), 0);
    return own;
}

static void close_decoding(struct pair *own)
{
    own->cuda->close(own->cuda);
    codes_up_to = SOME_ROWS;
}

/* Whether a card multiplies with the checkpoint's exact weights. */
static bool is_exact(const struct product_shape *s, int rows, size_t skip)
{
    const bool nvfp4 = s->format == WEIGHT_NVFP4, awq = s->format == WEIGHT_AWQ_INT4;
    if (rows <= FEW_ROWS)
        return (nvfp4 && s->group == 16) || (awq && (s->group % 64 == 0 || s->group == 32 || s->group == 16));
    return rows <= codes_up_to && s->in % 8 == 0 && skip % 8 == 0 &&
           ((nvfp4 && s->group == 16) || (awq && s->group % 64 == 0));
}

/* `skip` elements lie before x and y, so that rows begin anywhere. */
static void check_product(struct pair *p, const struct product_shape *s, int rows, bool with_bias, bool add,
                          size_t skip)
{
    struct matrix m =
        make_matrix(s->format, s->out, s->in, s->group, s->fp8, rows % 2 ? WEIGHT_F32 : WEIGHT_BF16, with_bias);
    size_t weights = (size_t)s->out * (size_t)s->in, x_values = (size_t)rows * (size_t)s->in + skip;
    size_t y_values = (size_t)rows * (size_t)s->out + skip;
    uint16_t *values = checked_alloc(weights * sizeof *values);
    const bool exact = is_exact(s, rows, skip);
    struct linear_source source[2] = {m.source, exact ? m.source : rounded(&m, values)};
    float *x = random_bf16(x_values, 1.0f), *y = checked_alloc(y_values * sizeof *y);
    for (size_t i = 0; i < y_values; i++)
        y[i] = tenth((int)i);
    struct kernels *k[2] = {p->cuda, p->cpu};
    act *result[2];
    for (int i = 0; i < 2; i++) {
        struct linear *w = NULL;
        struct error error = {0};
        uint64_t before = k[i]->memory_in_use(k[i]);
        if (k[i]->linear_open(k[i], &w, &source[i], &error))
            fail_msg("%s", error.text);
        assert_true(k[i]->memory_in_use(k[i]) > before);
        act *on_device = act_with(k[i], x, x_values);
        result[i] = act_with(k[i], y, y_values);
        k[i]->linear(k[i], w, act_at(k[i], on_device, skip), rows, act_at(k[i], result[i], skip), add);
        if (k[i]->sync(k[i], &error))
            fail_msg("%s", error.text);
        k[i]->memory_free(k[i], on_device);
        k[i]->linear_close(k[i], w);
    }
    assert_same_act(p, result[0], result[1], y_values, LIMIT, LIMIT);
    free(x), free(y), free(values);
    free_matrix(&m);
}

static void check_all(struct pair *p, const struct product_shape *shapes, size_t count, const int *rows,
                      size_t row_counts)
{
    for (size_t s = 0; s < count; s++)
        for (size_t r = 0; r < row_counts; r++)
            check_product(p, &shapes[s], rows[r], (s + r) % 2, (s + r) % 3 == 0, 0);
}
#define CHECK_ALL(p, shapes, rows)                                                                                     \
    check_all(p, shapes, sizeof shapes / sizeof *shapes, rows, sizeof rows / sizeof *rows)

static void bf16_and_float32_products_agree_with_the_cpu_for_any_width(void **state)
{
    static const struct product_shape shapes[] = {
        {WEIGHT_BF16, 48, 64, 0, false},  {WEIGHT_BF16, 96, 1176, 0, false}, {WEIGHT_BF16, 35, 75, 0, false},
        {WEIGHT_BF16, 80, 3420, 0, false}, {WEIGHT_BF16, 1, 1, 0, false},    {WEIGHT_F32, 100, 48, 0, false},
        {WEIGHT_F32, 33, 70, 0, false},
    };
    static const int rows[] = {1, 2, 7, 9, 16, 17, 70};
    CHECK_ALL(*state, shapes, rows);
}

static void awq_products_agree_with_the_cpu(void **state)
{
    static const struct product_shape shapes[] = {
        {WEIGHT_AWQ_INT4, 80, 256, 128, false},  {WEIGHT_AWQ_INT4, 37, 576, 64, false},
        {WEIGHT_AWQ_INT4, 48, 320, 32, false},   {WEIGHT_AWQ_INT4, 20, 1392, 16, false},
        {WEIGHT_AWQ_INT4, 16, 1536, 192, false},
    };
    static const int rows[] = {1, 8, 11, 16, 19, 66};
    CHECK_ALL(*state, shapes, rows);
}

/* Whatever way rows of x take: products with the unit matrix are the weights, to the last bit of a bf16 (MLX's, which
 * are rounded more than once, to the one before). */
static void every_code_with_every_scale_is_decoded_as_the_reference_does(void **state)
{
    enum { IN = EXHAUSTIVE_COLUMNS };
    static const struct { enum weight_format format; int group; bool fp8; int zeros; } kinds[] = {
        {WEIGHT_AWQ_INT4, 16, false, 16}, {WEIGHT_AWQ_INT4, 64, false, 256}, {WEIGHT_MLX_INT4, 32, false, 16},
        {WEIGHT_NVFP4, 64, false, 16},    {WEIGHT_NVFP4, 16, true, 16},      {WEIGHT_NVFP4, 12, true, 16},
        {WEIGHT_INT8, 64, false, 16},     {WEIGHT_AWQ_INT8, 16, false, 256}, {WEIGHT_MLX_INT8, 96, false, 16},
        {WEIGHT_INT8, 12, false, 16},
    };
    struct kernels *k = ((struct pair *)*state)->cuda;
    float unit[IN * IN] = {0};
    for (int i = 0; i < IN; i++)
        unit[i * IN + i] = 1.0f;
    act *x = act_with(k, unit, IN * IN);
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        struct matrix m =
            make_exhaustive_matrix(kinds[kind].format, kinds[kind].group, kinds[kind].fp8, kinds[kind].zeros);
        const size_t out = (size_t)m.source.out_features;
        float *got = checked_alloc(IN * out * sizeof *got);
        act *y = act_with(k, got, IN * out);
        struct linear *w = NULL;
        assert_int_equal(k->linear_open(k, &w, &m.source, NULL), 0);
        static const int rows[] = {8, 64, IN}; /* straight from the codes by two kernels, and decoded first */
        for (size_t way = 0; way < sizeof rows / sizeof *rows; way++) {
            const int at_once = rows[way];
            for (int row = 0; row < IN; row += at_once)
                k->linear(k, w, act_at(k, x, (size_t)row * IN), at_once, act_at(k, y, (size_t)row * out), false);
            k->download(k, got, y, IN * out);
            for (size_t i = 0; i < IN * out; i++) {
                const double value = m.values[i % out * IN + i / out];
                const double want = (double)bf16_to_float(float_to_bf16((float)value));
                const double limit = weight_has_offsets(kinds[kind].format) ? fabs(want) / 128.0 : 0.0;
                if (fabs((double)got[i] - want) > limit)
                    fail_msg("kind %zu, %d at once, row %zu, column %zu: %a, not %a", kind, at_once, i % out, i / out,
                             (double)got[i], want);
            }
        }
        assert_int_equal(k->sync(k, NULL), 0);
        k->linear_close(k, w);
        k->memory_free(k, y);
        free(got);
        free_matrix(&m);
    }
    k->memory_free(k, x);
}

static void mlx_products_agree_with_the_cpu(void **state)
{
    static const struct product_shape shapes[] = {
        {WEIGHT_MLX_INT4, 80, 256, 128, false}, {WEIGHT_MLX_INT4, 37, 576, 64, false},
        {WEIGHT_MLX_INT4, 50, 320, 32, false},  {WEIGHT_MLX_INT4, 20, 80, 16, false},
    };
    static const int rows[] = {1, 5, 16, 33};
    CHECK_ALL(*state, shapes, rows);
}

static void products_of_bytes_agree_with_the_cpu(void **state)
{
    static const struct product_shape shapes[] = {
        {WEIGHT_INT8, 80, 256, 128, false},    {WEIGHT_AWQ_INT8, 37, 576, 64, false},
        {WEIGHT_MLX_INT8, 50, 320, 32, false}, {WEIGHT_INT8, 20, 80, 16, false},
        {WEIGHT_MLX_INT8, 21, 75, 25, false},  {WEIGHT_AWQ_INT8, 18, 144, 48, false},
    };
    static const int rows[] = {1, 5, 16, 33};
    CHECK_ALL(*state, shapes, rows);
}

static void nvfp4_products_agree_with_the_cpu_with_either_scale(void **state)
{
    static const struct product_shape shapes[] = {
        {WEIGHT_NVFP4, 80, 256, 16, false}, {WEIGHT_NVFP4, 37, 1040, 16, true}, {WEIGHT_NVFP4, 50, 320, 32, true},
        {WEIGHT_NVFP4, 16, 128, 64, false}, {WEIGHT_NVFP4, 33, 2048, 16, true},
    };
    static const int rows[] = {1, 3, 8, 16, 18, 65};
    CHECK_ALL(*state, shapes, rows);
}

static void four_bit_matrices_of_unusual_groups_work_too(void **state)
{
    static const struct product_shape shapes[] = {
        {WEIGHT_AWQ_INT4, 37, 70, 10, false},
        {WEIGHT_AWQ_INT4, 18, 240, 80, false},
        {WEIGHT_MLX_INT4, 20, 144, 12, false},
        {WEIGHT_NVFP4, 20, 144, 12, true},
    };
    static const int rows[] = {1, 16, 40};
    CHECK_ALL(*state, shapes, rows);
}

/* More and fewer than half a block's rows, whole blocks and one row more; matrices of one tile of columns, of some, and
 * of a part of one; shared between blocks and not; groups of one slice, of two and of three; x with a last piece that
 * is not whole, and one whose rows begin anywhere. Past 128 rows weights are decoded first. */
static void some_rows_are_multiplied_with_the_exact_weights(void **state)
{
    static const struct product_shape shapes[] = {
        {WEIGHT_NVFP4, 80, 1040, 16, true},      {WEIGHT_NVFP4, 7, 64, 16, false},
        {WEIGHT_AWQ_INT4, 130, 512, 64, false},  {WEIGHT_AWQ_INT4, 64, 2048, 128, false},
        {WEIGHT_AWQ_INT4, 18, 384, 192, false},  {WEIGHT_MLX_INT4, 130, 1024, 64, false},
        {WEIGHT_MLX_INT4, 65, 256, 128, false},  {WEIGHT_NVFP4, 33, 2048, 16, true},
    };
    static const int rows[] = {17, 32, 33, 64, 65, 128, 129};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t r = s % 2; r < sizeof rows / sizeof *rows; r += s < 2 ? 1 : 2)
            check_product(*state, &shapes[s], rows[r], r % 2, (s + r) % 3 == 0, s == 1 ? 8 : 0);
    check_product(*state, &(struct product_shape){WEIGHT_NVFP4, 48, 128, 16, true}, 40, true, true, 4);
    check_product(*state, &(struct product_shape){WEIGHT_AWQ_INT4, 48, 140, 70, false}, 40, true, false, 0);
}

/* Zeros that do not fit in four bits: no quantiser makes them, the format allows them. */
static void awq_zeros_over_15_are_taken_as_they_are(void **state)
{
    struct pair *p = *state;
    enum { OUT = 20, IN = 128 };
    struct matrix m = make_matrix(WEIGHT_AWQ_INT4, OUT, IN, 64, false, WEIGHT_F32, false);
    uint8_t zeros[OUT * IN / 64];
    for (size_t i = 0; i < sizeof zeros; i++)
        zeros[i] = (uint8_t)(200 + i);
    m.source.zeros = zeros;
    float *x = random_bf16(IN, 1.0f);
    struct kernels *k[2] = {p->cuda, p->cpu};
    act *y[2];
    for (int i = 0; i < 2; i++) {
        struct linear *w = NULL;
        assert_int_equal(k[i]->linear_open(k[i], &w, &m.source, NULL), 0);
        act *on_device = act_with(k[i], x, IN);
        y[i] = act_with(k[i], x, OUT);
        k[i]->linear(k[i], w, on_device, 1, y[i], false);
        k[i]->sync(k[i], NULL);
        k[i]->memory_free(k[i], on_device);
        k[i]->linear_close(k[i], w);
    }
    /* the weights are rounded, too, and nearly equal weights times random x cancel */
    assert_same_act(p, y[0], y[1], OUT, 3 * BF16_ROUNDING, 6 * BF16_ROUNDING);
    free(x);
    free_matrix(&m);
}

static void rows_may_begin_at_any_element(void **state)
{
    static const struct product_shape shapes[] = {
        {WEIGHT_BF16, 50, 96, 0, false},
        {WEIGHT_BF16, 51, 100, 0, false},
        {WEIGHT_AWQ_INT4, 50, 128, 64, false},
        {WEIGHT_NVFP4, 33, 96, 16, false},
        {WEIGHT_INT8, 33, 96, 32, false},
    };
    static const int rows[] = {2, 12, 20};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            for (size_t skip = 1; skip <= 4; skip *= 2)
                check_product(*state, &shapes[s], rows[r], true, true, skip);
}

/* More tiles than the emulated card has multiprocessors: the large tiles. */
static void large_products_agree_with_the_cpu(void **state)
{
    static const struct product_shape shapes[] = {
        {WEIGHT_BF16, 300, 104, 0, false},
        {WEIGHT_BF16, 400, 76, 0, false},
        {WEIGHT_AWQ_INT4, 270, 192, 64, false},
        {WEIGHT_NVFP4, 257, 176, 16, false},
        {WEIGHT_MLX_INT8, 257, 192, 64, false},
    };
    static const int rows[] = {140, 260};
    CHECK_ALL(*state, shapes, rows);
}

/* A small card has little scratch memory: weights are read, and decoded for many rows, in pieces. */
static void a_matrix_larger_than_the_scratch_memory_is_taken_in_slabs(void **state)
{
    struct pair small = open_decoding(*state, "16000000");
    static const struct product_shape shapes[] = {
        {WEIGHT_AWQ_INT4, 600, 640, 128, false}, {WEIGHT_NVFP4, 523, 640, 16, true}, {WEIGHT_F32, 300, 640, 0, false},
        {WEIGHT_INT8, 523, 640, 128, false},
    };
    static const int rows[] = {3, 20};
    CHECK_ALL(&small, shapes, rows);
    close_decoding(&small);
}

static void the_same_product_gives_the_same_bytes(void **state)
{
    struct pair *p = *state;
    struct kernels *k = p->cuda;
    enum { OUT = 80, IN = 512 };
    static const int rows[] = {1, 16, 40};
    struct matrix m = make_matrix(WEIGHT_NVFP4, OUT, IN, 16, true, WEIGHT_F32, true);
    struct linear *w = NULL;
    assert_int_equal(k->linear_open(k, &w, &m.source, NULL), 0);
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        size_t x_values = (size_t)rows[r] * IN, y_values = (size_t)rows[r] * OUT;
        float *x = random_bf16(x_values, 1.0f), *first = NULL;
        act *on_device = act_with(k, x, x_values), *y = act_with(k, x, y_values);
        for (int i = 0; i < 3; i++) {
            k->linear(k, w, on_device, rows[r], y, false);
            float *again = values_of_act(k, y, y_values);
            if (first)
                assert_memory_equal(first, again, y_values * sizeof *first);
            free(i ? again : NULL);
            first = i ? first : again;
        }
        free(x), free(first);
        k->memory_free(k, on_device), k->memory_free(k, y);
    }
    k->linear_close(k, w);
    free_matrix(&m);
}

/* The MLP's way: many rows in pieces, each through the same three matrices; and what a cancelled product left undone is
 * done the next time. */
static void matrices_taken_in_turns_are_not_mixed_up(void **state)
{
    struct pair own = open_decoding(*state, NULL), *p = &own;
    enum { MATRICES = 4, WIDTH = 128, ROWS = 20 };
    struct matrix m[MATRICES];
    struct linear *w[2][MATRICES] = {{NULL}};
    uint16_t *values[MATRICES];
    struct kernels *k[2] = {p->cuda, p->cpu};
    for (int j = 0; j < MATRICES; j++) {
        m[j] = make_matrix(j % 2 ? WEIGHT_NVFP4 : WEIGHT_AWQ_INT4, WIDTH, WIDTH, 64, false, WEIGHT_F32, false);
        values[j] = checked_alloc(WIDTH * WIDTH * sizeof **values);
        struct linear_source source = rounded(&m[j], values[j]);
        assert_int_equal(k[0]->linear_open(k[0], &w[0][j], &m[j].source, NULL), 0);
        assert_int_equal(k[1]->linear_open(k[1], &w[1][j], &source, NULL), 0);
    }
    float *x = random_bf16(ROWS * WIDTH, 1.0f);
    act *on_device[2] = {act_with(k[0], x, ROWS * WIDTH), act_with(k[1], x, ROWS * WIDTH)};

    struct error error = {0};
    atomic_bool stop = true;
    act *undone = act_with(k[0], x, ROWS * WIDTH);
    k[0]->watch(k[0], &stop);
    k[0]->linear(k[0], w[0][0], on_device[0], ROWS, undone, false);
    assert_int_equal(k[0]->sync(k[0], &error), ERROR_CANCELLED);
    k[0]->watch(k[0], NULL);
    k[0]->memory_free(k[0], undone);

    static const int order[] = {0, 1, 2, 0, 1, 2, 3, 2, 0, 1, 1};
    for (size_t step = 0; step < sizeof order / sizeof *order; step++) {
        act *y[2];
        for (int i = 0; i < 2; i++) {
            y[i] = act_with(k[i], x, ROWS * WIDTH);
            k[i]->linear(k[i], w[i][order[step]], on_device[i], ROWS, y[i], false);
        }
        assert_same_act(p, y[0], y[1], ROWS * WIDTH, LIMIT, LIMIT);
    }
    for (int i = 0; i < 2; i++) {
        k[i]->memory_free(k[i], on_device[i]);
        for (int j = 0; j < MATRICES; j++)
            k[i]->linear_close(k[i], w[i][j]);
    }
    for (int j = 0; j < MATRICES; j++) {
        free(values[j]);
        free_matrix(&m[j]);
    }
    free(x);
    close_decoding(&own);
}

/* Products of many rows one after another, nothing waited for in between: as they are in a layer, through matrices that
 * are decoded whole, in slabs, or not at all. */
enum { CHAIN = 9, CHAIN_ROWS = 18, CHAIN_WIDTH = 320, CHAIN_LONGEST = 530 };

static float *run_chain(struct kernels *k, const struct matrix *matrices, int count, const int *order, size_t values)
{
    struct linear *w[CHAIN];
    act *y[CHAIN];
    float *x = random_bf16(CHAIN_ROWS * CHAIN_WIDTH, 1.0f), *results = checked_alloc(CHAIN * values * sizeof *results);
    for (int i = 0; i < count; i++)
        assert_int_equal(k->linear_open(k, &w[i], &matrices[i].source, NULL), 0);
    act *on_device = act_with(k, x, CHAIN_ROWS * CHAIN_WIDTH);
    for (int i = 0; i < CHAIN; i++) {
        void *memory = NULL;
        assert_int_equal(k->memory_alloc(k, &memory, values * k->act_bytes, NULL), 0);
        y[i] = memory;
        k->zero(k, y[i], values);
    }
    for (int i = 0; i < CHAIN; i++)
        k->linear(k, w[order[i]], on_device, CHAIN_ROWS, y[i], false);
    for (int i = 0; i < CHAIN; i++) {
        k->download(k, results + (size_t)i * values, y[i], values);
        k->memory_free(k, y[i]);
    }
    assert_int_equal(k->sync(k, NULL), 0);
    for (int i = 0; i < count; i++)
        k->linear_close(k, w[i]);
    k->memory_free(k, on_device);
    free(x);
    return results;
}

/* `side` as late as it may run, and as early; and everything on one stream. */
static void weights_decoded_beside_other_products_give_the_same_bytes(void **state)
{
    enum { MATRICES = 5 };
    struct matrix m[MATRICES];
    for (int i = 0; i < MATRICES; i++)
        m[i] =
            make_matrix(i == 3  ? WEIGHT_BF16
                        : i % 2 ? WEIGHT_NVFP4
                                : WEIGHT_AWQ_INT4,
                        i == 4 ? CHAIN_LONGEST : 80 + 16 * i, CHAIN_WIDTH, i == 3 ? 0 : 64, false, WEIGHT_F32, i % 2);
    static const int order[CHAIN] = {0, 1, 2, 0, 4, 3, 1, 0, 4};
    const size_t values = CHAIN_ROWS * CHAIN_LONGEST;
    static const struct {
        const char *overlap, *streams;
    } ways[] = {{"off", "late"}, {"on", "late"}, {"on", "early"}};
    const uint64_t seed = *random_state();
    float *expected = NULL;
    for (size_t way = 0; way < sizeof ways / sizeof *ways; way++) {
        struct kernels *k = NULL;
        struct error error = {0};
        assert_int_equal(setenv("LANCED_EMULATION_MEMORY", "8000000", 1), 0); /* slabs of 128 rows */
        assert_int_equal(setenv("LANCED_CUDA_OVERLAP", ways[way].overlap, 1), 0);
        assert_int_equal(setenv("LANCED_CUDA_SOME_ROWS", "16", 1), 0);
        if (kernels_cuda_load(&k, 0, &error))
            fail_msg("%s", error.text);
        assert_int_equal(unsetenv("LANCED_CUDA_SOME_ROWS"), 0);
        assert_int_equal(unsetenv("LANCED_CUDA_OVERLAP"), 0);
        assert_int_equal(unsetenv("LANCED_EMULATION_MEMORY"), 0);
        assert_int_equal(setenv("LANCED_EMULATION_STREAMS", ways[way].streams, 1), 0);
        *random_state() = seed;
        float *results = run_chain(k, m, MATRICES, order, values);
        assert_int_equal(unsetenv("LANCED_EMULATION_STREAMS"), 0);
        k->close(k);
        if (expected)
            assert_memory_equal(expected, results, CHAIN * values * sizeof *results);
        free(way ? results : NULL);
        expected = way ? expected : results;
    }
    free(expected);
    for (int i = 0; i < MATRICES; i++)
        free_matrix(&m[i]);
    (void)state;
}

static void a_closed_matrix_gives_its_memory_back(void **state)
{
    struct pair *p = *state;
    struct kernels *k = p->cuda;
    struct matrix m = make_matrix(WEIGHT_AWQ_INT4, 256, 1024, 128, false, WEIGHT_F32, true);
    struct linear *first = NULL, *w = NULL;
    assert_int_equal(k->linear_open(k, &first, &m.source, NULL), 0); /* scratch memory is taken now and stays */
    uint64_t before = k->memory_in_use(k);
    assert_int_equal(k->linear_open(k, &w, &m.source, NULL), 0);
    uint64_t bytes = k->memory_in_use(k) - before;
    assert_true(bytes >= 256 * 512 && bytes < 256 * 512 * 11 / 10); /* 4-bit weights stay 4-bit */
    k->linear_close(k, w);
    assert_int_equal(k->memory_in_use(k), before);
    k->linear_close(k, first);
    k->linear_close(k, NULL);
    free_matrix(&m);
}

static void a_matrix_that_makes_no_sense_is_refused(void **state)
{
    struct pair *p = *state;
    struct linear *w = NULL;
    struct error error = {0};
    uint8_t data[64] = {0};
    struct linear_source s = {.format = WEIGHT_AWQ_INT4, .out_features = 2, .in_features = 32, .group_size = 12,
                              .data = data, .scales = data, .zeros = data, .tensor_scale = 1.0f};
    uint64_t before = p->cuda->memory_in_use(p->cuda);
    assert_int_equal(p->cuda->linear_open(p->cuda, &w, &s, &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "12"));
    assert_null(w);
    assert_int_equal(p->cuda->memory_in_use(p->cuda), before);
}

/* What queries, keys and values are made by: matrices of different heights over one x. */
static void check_group(struct kernels *k, const struct product_shape shapes[LINEAR_GROUP], int rows)
{
    enum { HIGHEST = 80 };
    const size_t n = (size_t)rows * HIGHEST, x_values = (size_t)rows * (size_t)shapes[0].in;
    const struct linear *w[LINEAR_GROUP];
    struct linear *opened[LINEAR_GROUP];
    act *together[LINEAR_GROUP], *alone;
    float *x = random_bf16(x_values, 1.0f), *zeros = calloc(n, sizeof *zeros);
    act *on_device = act_with(k, x, x_values);
    alone = act_with(k, zeros, n);
    for (int i = 0; i < LINEAR_GROUP; i++) {
        const struct product_shape *s = &shapes[i];
        struct matrix m = make_matrix(s->format, s->out, s->in, s->group, s->fp8, WEIGHT_BF16, i != 1);
        struct error error = {0};
        if (k->linear_open(k, &opened[i], &m.source, &error))
            fail_msg("%s", error.text);
        free_matrix(&m);
        w[i] = opened[i];
        together[i] = act_with(k, zeros, n);
    }
    k->linear_group(k, w, LINEAR_GROUP, &(struct normed_rows){.x = on_device, .rows = rows}, together);
    for (int i = 0; i < LINEAR_GROUP; i++) {
        const size_t values = (size_t)(rows * shapes[i].out);
        k->linear(k, w[i], on_device, rows, alone, false);
        float *one = values_of_act(k, alone, values), *other = values_of_act(k, together[i], values);
        assert_true(fabsf(one[values - 1]) > 0.0f);
        assert_memory_equal(other, one, values * sizeof *one);
        free(one), free(other);
        k->memory_free(k, together[i]);
        k->linear_close(k, opened[i]);
    }
    k->memory_free(k, on_device);
    k->memory_free(k, alone);
    free(x), free(zeros);
}

static void a_group_of_products_gives_the_bytes_of_each_alone(void **state)
{
    struct pair *p = *state;
    static const struct product_shape shapes[][LINEAR_GROUP] = {
        {{WEIGHT_AWQ_INT4, 80, 256, 64, false},
         {WEIGHT_AWQ_INT4, 16, 256, 64, false},
         {WEIGHT_AWQ_INT4, 37, 256, 64, false}},
        {{WEIGHT_NVFP4, 48, 128, 16, false}, {WEIGHT_NVFP4, 64, 128, 16, true}, {WEIGHT_NVFP4, 7, 128, 16, false}},
        {{WEIGHT_BF16, 33, 96, 0, false}, {WEIGHT_BF16, 16, 96, 0, false}, {WEIGHT_F32, 50, 96, 0, false}},
        {{WEIGHT_MLX_INT4, 40, 128, 64, false},
         {WEIGHT_AWQ_INT4, 24, 128, 64, false},
         {WEIGHT_MLX_INT4, 8, 128, 32, false}},
    };
    static const int rows[] = {1, 9, 20};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
            check_group(p->cuda, shapes[i], rows[r]);
}

/* A layer's two groups of products over normed rows, beside the operators one by one. */
static void check_normed_group(struct kernels *k, enum weight_format format, int width, int rows)
{
    enum { OUT = 80 };
    const size_t x_values = (size_t)rows * (size_t)width, values = (size_t)rows * OUT;
    float *x = random_bf16(x_values, 3.0f), *weight = random_floats((size_t)width, 1.0f);
    float *zeros = calloc(x_values + values, sizeof *zeros);
    struct linear *opened[2];
    struct matrix m[2]; /* the CPU reads them where they are */
    act *together[2], *alone[2], *h = act_with(k, zeros, x_values), *on_device = act_with(k, x, x_values);
    param *norm = param_with(k, weight, (size_t)width);
    for (int i = 0; i < 2; i++) {
        m[i] = make_matrix(format, OUT, width, format == WEIGHT_NVFP4 ? 16 : 64, false, WEIGHT_BF16, i == 0);
        struct error error = {0};
        if (k->linear_open(k, &opened[i], &m[i].source, &error))
            fail_msg("%s", error.text);
        together[i] = act_with(k, zeros, values);
        alone[i] = act_with(k, zeros, values);
    }
    const struct linear *const w[] = {opened[0], opened[1]};
    const struct normed_rows normed = {.x = on_device, .rows = rows, .weight = norm, .eps = 1e-6f, .h = h};
    k->linear_group(k, w, 2, &normed, together);
    k->rms_norm(k, on_device, rows, width, norm, 1e-6f, h);
    for (int i = 0; i < 2; i++) {
        k->linear(k, w[i], h, rows, alone[i], false);
        assert_same_bytes_of_act(k, together[i], alone[i], values);
    }
    k->zero(k, h, x_values);
    k->linear_swiglu(k, w[0], w[1], &normed, together[0], together[1]);
    k->swiglu(k, alone[0], alone[1], values, alone[0]);
    assert_same_bytes_of_act(k, together[0], alone[0], values);
    for (int i = 0; i < 2; i++) {
        k->memory_free(k, together[i]), k->memory_free(k, alone[i]);
        k->linear_close(k, opened[i]);
        free_matrix(&m[i]);
    }
    k->memory_free(k, h), k->memory_free(k, on_device), k->memory_free(k, norm);
    free(x), free(weight), free(zeros);
}

/* Widths of one warp's norm and of eight warps', of one tile for each warp and more, and one without whole tiles; more
 * rows than a block norms, and than few. */
static void products_that_norm_their_rows_give_the_bytes_of_the_operators_one_by_one(void **state)
{
    struct pair *p = *state;
    static const enum weight_format formats[] = {WEIGHT_NVFP4, WEIGHT_AWQ_INT4, WEIGHT_MLX_INT4, WEIGHT_BF16,
                                                 WEIGHT_INT8};
    static const struct {
        int width, rows;
    } shapes[] = {{2048, 1}, {2048, 8}, {2048, 9}, {1088, 3}, {256, 1}, {512, 8}, {320, 2}, {256, 20}};
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            check_normed_group(p->cuda, formats[f], shapes[i].width, shapes[i].rows);
    check_normed_group(p->cuda, WEIGHT_BF16, 200, 3);
    check_normed_group(p->cpu, WEIGHT_NVFP4, 256, 1);
    check_normed_group(p->cpu, WEIGHT_AWQ_INT4, 256, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bf16_and_float32_products_agree_with_the_cpu_for_any_width),
        cmocka_unit_test(awq_products_agree_with_the_cpu),
        cmocka_unit_test(every_code_with_every_scale_is_decoded_as_the_reference_does),
        cmocka_unit_test(mlx_products_agree_with_the_cpu),
        cmocka_unit_test(products_of_bytes_agree_with_the_cpu),
        cmocka_unit_test(nvfp4_products_agree_with_the_cpu_with_either_scale),
        cmocka_unit_test(four_bit_matrices_of_unusual_groups_work_too),
        cmocka_unit_test(some_rows_are_multiplied_with_the_exact_weights),
        cmocka_unit_test(awq_zeros_over_15_are_taken_as_they_are),
        cmocka_unit_test(rows_may_begin_at_any_element),
        cmocka_unit_test(large_products_agree_with_the_cpu),
        cmocka_unit_test(a_matrix_larger_than_the_scratch_memory_is_taken_in_slabs),
        cmocka_unit_test(the_same_product_gives_the_same_bytes),
        cmocka_unit_test(matrices_taken_in_turns_are_not_mixed_up),
        cmocka_unit_test(weights_decoded_beside_other_products_give_the_same_bytes),
        cmocka_unit_test(a_closed_matrix_gives_its_memory_back),
        cmocka_unit_test(a_group_of_products_gives_the_bytes_of_each_alone),
        cmocka_unit_test(products_that_norm_their_rows_give_the_bytes_of_the_operators_one_by_one),
        cmocka_unit_test(a_matrix_that_makes_no_sense_is_refused),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
