/* Attention of the CPU backend against double precision. */
#include "tests/unit/kernel_fixture.h"

struct shape {
    int q_rows, heads, kv_heads, head_dim;
    bool causal;
    int segments, segment_rows[ATTENTION_MAX_SEGMENTS];
    float amplitude; /* of queries and keys */
};

struct problem {
    struct attention attention;
    float *memory[2 * ATTENTION_MAX_SEGMENTS + 1];
    double *want; /* [q_rows, heads * head_dim] */
};

static float element(const act *base, int row, int stride, int head, int dim, int d)
{
    return ((const float *)base)[(size_t)row * (size_t)stride + (size_t)(head * dim + d)];
}

static void reference(const struct attention *a, double *want)
{
    int keys = 0;
    for (int s = 0; s < a->segments; s++)
        keys += a->segment[s].rows;
    int last = a->segment[a->segments - 1].rows, dim = a->head_dim;
    double *score = zero_doubles((size_t)keys);
    for (int i = 0; i < a->q_rows; i++)
        for (int h = 0; h < a->heads; h++) {
            int kv = h / (a->heads / a->kv_heads), seen = 0;
            double top = -1e300, sum = 0.0;
            for (int s = 0; s < a->segments; s++)
                for (int j = 0; j < a->segment[s].rows; j++) {
                    if (a->causal && s == a->segments - 1 && j > i + last - a->q_rows)
                        break;
                    double dot = 0.0;
                    for (int d = 0; d < dim; d++)
                        dot += (double)element(a->q, i, a->q_stride, h, dim, d) *
                               (double)element(a->segment[s].keys, j, a->segment[s].stride, kv, dim, d);
                    score[seen] = dot * (double)a->scale;
                    top = score[seen] > top ? score[seen] : top;
                    seen++;
                }
            for (int j = 0; j < seen; j++)
                sum += score[j] = exp(score[j] - top);
            for (int d = 0; d < dim; d++) {
                double value = 0.0;
                int j = 0;
                for (int s = 0; s < a->segments; s++)
                    for (int r = 0; r < a->segment[s].rows && j < seen; r++, j++)
                        value += score[j] * (double)element(a->segment[s].values, r, a->segment[s].stride, kv, dim, d);
                want[((size_t)i * (size_t)a->heads + (size_t)h) * (size_t)dim + (size_t)d] = value / sum;
            }
        }
    free(score);
}

static struct problem make_problem(const struct shape *shape)
{
    struct problem p = {.attention = {.q_rows = shape->q_rows, .heads = shape->heads, .kv_heads = shape->kv_heads,
                                      .head_dim = shape->head_dim, .causal = shape->causal,
                                      .segments = shape->segments, .q_stride = shape->heads * shape->head_dim + 3,
                                      .out_stride = shape->heads * shape->head_dim,
                                      .scale = 1.0f / sqrtf((float)shape->head_dim)}};
    struct attention *a = &p.attention;
    p.memory[0] = random_floats((size_t)a->q_rows * (size_t)a->q_stride, shape->amplitude);
    a->q = as_act(p.memory[0]);
    for (int s = 0; s < shape->segments; s++) {
        int rows = shape->segment_rows[s], stride = shape->kv_heads * shape->head_dim + 5 * s;
        p.memory[1 + 2 * s] = random_floats((size_t)rows * (size_t)stride, shape->amplitude);
        p.memory[2 + 2 * s] = random_floats((size_t)rows * (size_t)stride, 1.0f);
        a->segment[s].keys = as_act(p.memory[1 + 2 * s]);
        a->segment[s].values = as_act(p.memory[2 + 2 * s]);
        a->segment[s].rows = rows;
        a->segment[s].stride = stride;
    }
    p.want = zero_doubles((size_t)a->q_rows * (size_t)(a->heads * a->head_dim));
    reference(a, p.want);
    return p;
}

static void check(const struct shape *shapes, int count)
{
    struct problem *problems = checked_alloc((size_t)count * sizeof *problems);
    struct attention *calls = checked_alloc((size_t)count * sizeof *calls);
    struct results *results = checked_alloc((size_t)count * sizeof *results);
    for (int i = 0; i < count; i++) {
        problems[i] = make_problem(&shapes[i]);
        results[i] = (struct results){.n = (size_t)shapes[i].q_rows * (size_t)(shapes[i].heads * shapes[i].head_dim),
                                      .rounded_limit = shapes[i].amplitude > 10.0f ? 0.1 : 0.0};
    }
    for (int which = 0; which < ROUNDED_BACKENDS; which++) {
        struct kernels *k = open_backend(which);
        struct error error;
        for (int i = 0; i < count; i++) {
            calls[i] = problems[i].attention;
            results[i].of[which] = output_like(NULL, results[i].n);
            calls[i].out = (act *)results[i].of[which];
        }
        k->attention(k, calls, count);
        assert_int_equal(k->sync(k, &error), 0);
        k->close(k);
    }
    for (int i = 0; i < count; i++) {
        /* Scores in the hundreds, rounded to float32, shift their exponentials by that much more. */
        check_results(&results[i], problems[i].want, shapes[i].amplitude > 10.0f ? 2e-5 : 2e-6);
        free(problems[i].want);
        for (size_t m = 0; m < sizeof problems[i].memory / sizeof *problems[i].memory; m++)
            free(problems[i].memory[m]);
    }
    free(results);
    free(calls);
    free(problems);
}

static void full_attention_matches_double_precision(void **state)
{
    (void)state;
    const struct shape shapes[] = {
        {.q_rows = 1, .heads = 1, .kv_heads = 1, .head_dim = 4, .segments = 1, .segment_rows = {1}, .amplitude = 1},
        {.q_rows = 70, .heads = 4, .kv_heads = 2, .head_dim = 32, .segments = 1, .segment_rows = {70}, .amplitude = 3},
        {.q_rows = 131, .heads = 3, .kv_heads = 3, .head_dim = 80, .segments = 1, .segment_rows = {131},
         .amplitude = 2},
        {.q_rows = 50, .heads = 8, .kv_heads = 2, .head_dim = 128, .segments = 1, .segment_rows = {600},
         .amplitude = 2},
        {.q_rows = 33, .heads = 2, .kv_heads = 1, .head_dim = 17, .segments = 1, .segment_rows = {257}, .amplitude = 1},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check(&shapes[i], 1);
}

static void causal_queries_end_with_the_last_segment(void **state)
{
    (void)state;
    const struct shape shapes[] = {
        {.q_rows = 9, .heads = 4, .kv_heads = 2, .head_dim = 32, .causal = true, .segments = 1, .segment_rows = {9},
         .amplitude = 1},
        {.q_rows = 1, .heads = 16, .kv_heads = 2, .head_dim = 128, .causal = true, .segments = 1, .segment_rows = {300},
         .amplitude = 1},
        {.q_rows = 300, .heads = 4, .kv_heads = 2, .head_dim = 32, .causal = true, .segments = 2,
         .segment_rows = {129, 300}, .amplitude = 2},
        {.q_rows = 40, .heads = 4, .kv_heads = 4, .head_dim = 16, .causal = true, .segments = 3,
         .segment_rows = {250, 3, 60}, .amplitude = 2},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check(&shapes[i], 1);
}

static void segments_act_as_one_sequence_even_when_some_are_empty(void **state)
{
    (void)state;
    const struct shape shapes[] = {
        {.q_rows = 65, .heads = 4, .kv_heads = 2, .head_dim = 32, .segments = 4, .segment_rows = {0, 37, 0, 300},
         .amplitude = 2},
        {.q_rows = 20, .heads = 2, .kv_heads = 1, .head_dim = 128, .segments = 2, .segment_rows = {511, 2},
         .amplitude = 2},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check(&shapes[i], 1);
}

static void one_wide_head_as_in_the_autoencoder_is_right(void **state)
{
    (void)state;
    const struct shape shape = {.q_rows = 140, .heads = 1, .kv_heads = 1, .head_dim = 1024, .segments = 1,
                                .segment_rows = {140}, .amplitude = 1};
    check(&shape, 1);
}

static void large_scores_do_not_overflow(void **state)
{
    (void)state;
    const struct shape shape = {.q_rows = 60, .heads = 2, .kv_heads = 2, .head_dim = 16, .segments = 1,
                                .segment_rows = {700}, .amplitude = 30};
    check(&shape, 1);
}

static void many_problems_in_one_call_do_not_disturb_each_other(void **state)
{
    (void)state;
    enum { COUNT = 300 };
    struct shape shapes[COUNT];
    for (int i = 0; i < COUNT; i++)
        shapes[i] = (struct shape){.q_rows = 1 + i % 19, .heads = 4, .kv_heads = 1 << i % 3, .head_dim = 16,
                                   .segments = 1, .segment_rows = {1 + i % 31}, .amplitude = 1};
    check(shapes, COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full_attention_matches_double_precision),
        cmocka_unit_test(causal_queries_end_with_the_last_segment),
        cmocka_unit_test(segments_act_as_one_sequence_even_when_some_are_empty),
        cmocka_unit_test(one_wide_head_as_in_the_autoencoder_is_right),
        cmocka_unit_test(large_scores_do_not_overflow),
        cmocka_unit_test(many_problems_in_one_call_do_not_disturb_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
