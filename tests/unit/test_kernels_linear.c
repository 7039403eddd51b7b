/* Matrix products and embedding rows of the CPU backend against double precision. */
#include "kernels/cpu/cpu.h"
#include "tests/unit/matrix_fixture.h"

static void check_product(enum weight_format format, int rows, int out, int in, int group, bool fp8, bool add)
{
    struct matrix m = make_matrix(format, out, in, group, fp8, in % 3 ? WEIGHT_F32 : WEIGHT_BF16, rows % 2 == 0);
    float *x = random_floats((size_t)rows * (size_t)in, 1.0f);
    struct results r = {.n = (size_t)rows * (size_t)out};
    double *want = zero_doubles(r.n);
    for (int row = 0; row < rows; row++)
        for (int o = 0; o < out; o++) {
            double sum = (m.bias_values ? (double)m.bias_values[o] : 0.0) + (add ? 0.25 : 0.0);
            for (int i = 0; i < in; i++)
                sum += (double)x[(size_t)row * (size_t)in + (size_t)i] *
                       m.values[(size_t)o * (size_t)in + (size_t)i];
            want[(size_t)row * (size_t)out + (size_t)o] = sum;
        }
    for (int which = 0; which < ROUNDED_BACKENDS; which++) {
        struct kernels *k = open_backend(which);
        struct linear *w = NULL;
        struct error error = {0};
        assert_int_equal(k->linear_open(k, &w, &m.source, &error), 0);
        r.of[which] = output_like(NULL, r.n);
        k->linear(k, w, as_act(x), rows, (act *)r.of[which], add);
        assert_int_equal(k->sync(k, &error), 0);
        k->linear_close(k, w);
        assert_int_equal(k->memory_in_use(k), 0);
        k->close(k);
    }
    check_results(&r, want, 2e-6);
    free(want);
    free(x);
    free_matrix(&m);
}

static const int row_counts[] = {1, 2, 3, 4, 5, 7, 13, 16, 17, 31, 33, 70, 100};

static void float32_products_match_double_precision(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++) {
        check_product(WEIGHT_F32, row_counts[i], 33, 67, 0, false, false);
        check_product(WEIGHT_F32, row_counts[i], 150, 520, 0, false, true);
        check_product(WEIGHT_F32, row_counts[i], 1, 1, 0, false, false);
    }
}

static void bf16_products_match_double_precision(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++) {
        check_product(WEIGHT_BF16, row_counts[i], 35, 75, 0, false, false);
        check_product(WEIGHT_BF16, row_counts[i], 129, 560, 0, false, true);
        check_product(WEIGHT_BF16, row_counts[i], 3, 3420 / 4, 0, false, false);
    }
}

static void awq_products_match_double_precision_for_any_group(void **state)
{
    (void)state;
    static const struct { int in, group;
    } shapes[] = {{256, 128}, {576, 64},  {320, 32}, {192, 16},  {128, 8}, {144, 12},
                  {70, 10},   {688, 344}, {96, 96},  {640, 128}, {600, 40}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++)
            check_product(WEIGHT_AWQ_INT4, row_counts[i], s % 2 ? 37 : 80, shapes[s].in, shapes[s].group, false, i % 2);
}

static void mlx_products_match_double_precision_for_any_group(void **state)
{
    (void)state;
    static const struct {
        int in, group;
    } shapes[] = {{256, 128}, {576, 64}, {320, 32}, {192, 16}, {144, 12}, {600, 40}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++)
            check_product(WEIGHT_MLX_INT4, row_counts[i], s % 2 ? 37 : 80, shapes[s].in, shapes[s].group, false, i % 2);
}

static void nvfp4_products_match_double_precision_with_either_scale(void **state)
{
    (void)state;
    static const struct { int in, group; } shapes[] = {{256, 16}, {576, 16}, {320, 32}, {192, 64}, {48, 16}, {144, 12}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++)
            check_product(WEIGHT_NVFP4, row_counts[i], s % 2 ? 37 : 80, shapes[s].in, shapes[s].group, i % 2, s % 2);
}

static void products_of_bytes_match_double_precision_for_any_group(void **state)
{
    (void)state;
    static const enum weight_format formats[] = {WEIGHT_INT8, WEIGHT_AWQ_INT8, WEIGHT_MLX_INT8};
    static const struct {
        int in, group;
    } shapes[] = {{256, 128}, {576, 64}, {320, 32}, {192, 16}, {144, 12}, {75, 25}};
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            for (size_t i = 0; i < sizeof row_counts / sizeof *row_counts; i++)
                check_product(formats[f], row_counts[i], s % 2 ? 37 : 80, shapes[s].in, shapes[s].group, false, i % 2);
}

static void a_product_larger_than_every_block_is_right(void **state)
{
    (void)state;
    check_product(WEIGHT_AWQ_INT4, 205, 1100, 768, 128, false, false);
    check_product(WEIGHT_BF16, 401, 70, 300, 0, false, true);
    check_product(WEIGHT_NVFP4, 530, 70, 2176, 16, true, true);
}

/* In bf16, more rows of such a width than are packed at a time. */
static void rows_that_are_packed_in_parts_give_the_same_bytes(void **state)
{
    (void)state;
    enum { ROWS = 1100, OUT = 17, IN = 11008, FIRST = 500, FEW = 30 };
    struct matrix m = make_matrix(WEIGHT_AWQ_INT4, OUT, IN, 128, false, WEIGHT_F32, true);
    float *x = random_floats((size_t)ROWS * IN, 1.0f);
    float *all = checked_alloc((size_t)ROWS * OUT * sizeof *all), *few = checked_alloc((size_t)FEW * OUT * sizeof *few);
    for (int which = BACKENDS + 2; which < ROUNDED_BACKENDS; which += 4) {
        struct kernels *k = open_backend(which);
        struct linear *w = NULL;
        assert_int_equal(k->linear_open(k, &w, &m.source, NULL), 0);
        k->linear(k, w, as_act(x), ROWS, (act *)all, false);
        k->linear(k, w, as_act(x + (size_t)FIRST * IN), FEW, (act *)few, false);
        assert_memory_equal(few, all + FIRST * OUT, FEW * OUT * sizeof *few);
        k->linear_close(k, w);
        k->close(k);
    }
    free(all), free(few), free(x);
    free_matrix(&m);
}

static void a_row_gives_the_same_bytes_whatever_rows_are_beside_it(void **state)
{
    (void)state;
    enum { ROWS = 203, OUT = 150, IN = 384, MOST = 7 };
    const enum weight_format formats[] = {WEIGHT_F32,   WEIGHT_BF16, WEIGHT_AWQ_INT4, WEIGHT_MLX_INT4,
                                          WEIGHT_NVFP4, WEIGHT_INT8, WEIGHT_AWQ_INT8, WEIGHT_MLX_INT8};
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (int which = 0; which < ROUNDED_BACKENDS; which++) {
            const int groups[] = {16, 64, 128};
            const bool fp8 = formats[f] == WEIGHT_NVFP4 && which % 2;
            struct matrix m = make_matrix(formats[f], OUT, IN, groups[which % 3], fp8, WEIGHT_F32, true);
            float *x = random_floats((size_t)ROWS * IN, 1.0f);
            float *all = checked_alloc((size_t)ROWS * OUT * sizeof *all),
                  *few = checked_alloc((size_t)MOST * OUT * sizeof *few);
            struct kernels *k = open_backend(which);
            struct linear *w = NULL;
            assert_int_equal(k->linear_open(k, &w, &m.source, NULL), 0);
            k->linear(k, w, as_act(x), ROWS, (act *)all, false);
            for (int rows = 2; rows <= MOST; rows++) {
                int first = ROWS - 7 * rows;
                k->linear(k, w, as_act(x + (size_t)first * IN), rows, (act *)few, false);
                assert_memory_equal(few, all + (size_t)first * OUT, (size_t)rows * OUT * sizeof *few);
            }
            k->linear_close(k, w);
            k->close(k);
            free(all), free(few), free(x);
            free_matrix(&m);
        }
}

static void embedding_rows_are_the_tables_rows(void **state)
{
    (void)state;
    enum { WIDTH = 48 };
    static const enum weight_format formats[] = {WEIGHT_F32, WEIGHT_BF16, WEIGHT_MLX_INT4, WEIGHT_MLX_INT8};
    for (int f = 0; f < 4; f++) {
        struct matrix m = make_matrix(formats[f], 50, WIDTH, 16, false, WEIGHT_F32, false);
        int32_t ids[130];
        for (int i = 0; i < 130; i++)
            ids[i] = (int32_t)(random_u32() % 50);
        for (int which = 0; which < BACKENDS; which++) {
            struct kernels *k = open_backend(which);
            struct linear *table = NULL;
            struct error error;
            assert_int_equal(k->linear_open(k, &table, &m.source, &error), 0);
            float y[130 * WIDTH];
            k->embed(k, table, ids, 130, (act *)y);
            for (int i = 0; i < 130; i++)
                for (int j = 0; j < WIDTH; j++)
                    assert_true(y[i * WIDTH + j] == (float)m.values[ids[i] * WIDTH + j]);
            k->linear_close(k, table);
            k->close(k);
        }
        free_matrix(&m);
    }
}

static void a_matrix_that_makes_no_sense_is_refused(void **state)
{
    (void)state;
    struct kernels *k = open_backend(0);
    struct linear *w = NULL;
    struct error error;
    uint8_t data[64] = {0};
    struct linear_source s = {.format = WEIGHT_AWQ_INT4, .out_features = 2, .in_features = 32, .group_size = 12,
                              .data = data, .scales = data, .zeros = data, .tensor_scale = 1.0f};
    assert_int_equal(k->linear_open(k, &w, &s, &error), ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "12"));
    s.group_size = 16;
    s.zeros = NULL;
    assert_int_equal(k->linear_open(k, &w, &s, &error), ERROR_BAD_FILE);
    s.format = WEIGHT_MLX_INT4;
    assert_int_equal(k->linear_open(k, &w, &s, &error), ERROR_BAD_FILE);
    s.format = WEIGHT_NVFP4;
    s.scales = NULL;
    assert_int_equal(k->linear_open(k, &w, &s, &error), ERROR_BAD_FILE);
    s.format = WEIGHT_INT8;
    assert_int_equal(k->linear_open(k, &w, &s, &error), ERROR_BAD_FILE);
    s.format = WEIGHT_MLX_INT8;
    s.scales = data;
    assert_int_equal(k->linear_open(k, &w, &s, &error), ERROR_BAD_FILE);
    s.format = WEIGHT_F32;
    s.out_features = 0;
    assert_int_equal(k->linear_open(k, &w, &s, &error), ERROR_BAD_FILE);
    assert_null(w);
    k->close(k);
}

static void activations_that_are_no_numbers_give_results_that_are_none(void **state)
{
    (void)state;
    enum { OUT = 40, IN = 256 };
    const enum weight_format formats[] = {WEIGHT_F32,   WEIGHT_BF16, WEIGHT_AWQ_INT4, WEIGHT_MLX_INT4,
                                          WEIGHT_NVFP4, WEIGHT_INT8, WEIGHT_AWQ_INT8, WEIGHT_MLX_INT8};
    const float odd[] = {NAN, INFINITY, -INFINITY};
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (int which = 0; which < ROUNDED_BACKENDS; which++) {
            struct matrix m = make_matrix(formats[f], OUT, IN, 64, false, WEIGHT_F32, true);
            float *x = random_floats(IN, 1.0f), y[OUT];
            struct kernels *k = open_backend(which);
            struct linear *w = NULL;
            assert_int_equal(k->linear_open(k, &w, &m.source, NULL), 0);
            for (int i = 0; i < 3; i++) {
                for (int at = 0; at < IN; at += 8)
                    x[at] = odd[i];
                k->linear(k, w, as_act(x), 1, (act *)y, false);
                for (int j = 0; j < OUT; j++)
                    assert_false(isfinite(y[j]));
            }
            k->linear_close(k, w);
            k->close(k);
            free(x);
            free_matrix(&m);
        }
}

static void an_allocation_that_failed_in_a_cancelled_job_is_not_told_to_the_next_one(void **state)
{
    (void)state;
    struct kernels *k = open_backend(0);
    struct error error;
    atomic_bool is_cancelled;
    atomic_init(&is_cancelled, true);
    cpu_of(k)->failed_bytes = 64; /* as an operator leaves it that got no scratch memory */
    k->watch(k, &is_cancelled);
    assert_int_equal(k->sync(k, &error), ERROR_CANCELLED);
    k->watch(k, NULL);
    assert_int_equal(k->sync(k, &error), 0);
    cpu_of(k)->failed_bytes = 64;
    assert_int_equal(k->sync(k, &error), ERROR_NO_MEMORY);
    assert_int_equal(k->sync(k, &error), 0);
    k->close(k);
}

static void memory_is_counted_and_the_peak_kept(void **state)
{
    (void)state;
    struct kernels *k = open_backend(0);
    struct error error;
    void *a = NULL, *b = NULL, *none = &error;
    assert_int_equal(k->memory_alloc(k, &a, 1000, &error), 0);
    assert_int_equal(k->memory_alloc(k, &b, 500, &error), 0);
    assert_int_equal(k->memory_alloc(k, &none, 0, &error), 0);
    assert_null(none);
    assert_int_equal(k->memory_in_use(k), 1500);
    k->memory_free(k, a);
    k->memory_free(k, NULL);
    assert_int_equal(k->memory_in_use(k), 500);
    assert_int_equal(k->memory_peak(k), 1500);
    k->memory_free(k, b);
    assert_int_equal(k->memory_alloc(k, &a, SIZE_MAX - 100, &error), ERROR_NO_MEMORY);
    assert_int_equal(k->memory_in_use(k), 0);
    k->close(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float32_products_match_double_precision),
        cmocka_unit_test(bf16_products_match_double_precision),
        cmocka_unit_test(awq_products_match_double_precision_for_any_group),
        cmocka_unit_test(mlx_products_match_double_precision_for_any_group),
        cmocka_unit_test(nvfp4_products_match_double_precision_with_either_scale),
        cmocka_unit_test(products_of_bytes_match_double_precision_for_any_group),
        cmocka_unit_test(a_product_larger_than_every_block_is_right),
        cmocka_unit_test(rows_that_are_packed_in_parts_give_the_same_bytes),
        cmocka_unit_test(a_row_gives_the_same_bytes_whatever_rows_are_beside_it),
        cmocka_unit_test(embedding_rows_are_the_tables_rows),
        cmocka_unit_test(a_matrix_that_makes_no_sense_is_refused),
        cmocka_unit_test(activations_that_are_no_numbers_give_results_that_are_none),
        cmocka_unit_test(an_allocation_that_failed_in_a_cancelled_job_is_not_told_to_the_next_one),
        cmocka_unit_test(memory_is_counted_and_the_peak_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
