/* The CUDA backend's head norm with rotary positions beside the CPU's. */
#include "cuda_fixture.h"

struct shape {
    int rows, heads, head_dim, stride; /* stride 0: heads * head_dim */
    size_t start;
};
static const struct shape shapes[] = {{1, 1, 2, 0, 0},      {5, 2, 128, 0, 0},   {3, 3, 80, 0, 0},  {7, 2, 32, 200, 0},
                                      {4, 1, 128, 257, 0},  {4, 2, 64, 128, 1},  {2, 5, 6, 31, 3},  {3, 1, 256, 0, 0},
                                      {9, 16, 128, 2560, 2}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void compare(struct pair *p, const struct shape *s, bool with_norm)
{
    const size_t width = (size_t)s->heads * (size_t)s->head_dim, stride = s->stride ? (size_t)s->stride : width;
    const size_t all = s->start + (size_t)(s->rows - 1) * stride + width + 3, half = (size_t)s->head_dim / 2;
    const size_t angles = (size_t)s->rows * half;
    float *x = random_bf16(all, 4.0f), *w = random_floats(2 * half, 2.0f);
    float *cosines = checked_alloc(angles * sizeof *cosines), *sines = checked_alloc(angles * sizeof *sines);
    for (size_t i = 0; i < angles; i++) {
        const float angle = 100.0f * random_float();
        cosines[i] = cosf(angle);
        sines[i] = sinf(angle);
    }
    struct kernels *k[2] = {p->cuda, p->cpu};
    act *result[2];
    for (int i = 0; i < 2; i++) {
        param *weight = param_with(k[i], w, 2 * half);
        param *c = param_with(k[i], cosines, angles), *sn = param_with(k[i], sines, angles);
        result[i] = act_with(k[i], x, all);
        const struct head_part part = {.x = act_at(k[i], result[i], s->start), .rows = s->rows, .stride = (int)stride,
                                       .heads = s->heads, .weight = with_norm ? weight : NULL, .cosines = c,
                                       .sines = sn};
        k[i]->head_norm_rope(k[i], &part, 1, s->head_dim, 1e-6f);
        k[i]->memory_free(k[i], weight), k[i]->memory_free(k[i], c), k[i]->memory_free(k[i], sn);
    }
    /* everything is compared, so that a step past a head or into the stride's gap shows */
    assert_same_act(p, result[0], result[1], all, BF16_ROUNDING, 1.01 * BF16_ROUNDING);
    free(x), free(w), free(cosines), free(sines);
}

static void heads_are_normed_and_rotated_as_on_the_cpu(void **state)
{
    for (size_t i = 0; i < SHAPES; i++)
        compare(*state, &shapes[i], true);
}

static void without_a_weight_heads_are_only_rotated(void **state)
{
    for (size_t i = 0; i < SHAPES; i++)
        compare(*state, &shapes[i], false);
}

/* As a layer has them: queries and keys of two kinds of rows, one of them without any. */
static void parts_together_give_the_bytes_of_each_alone(void **state)
{
    struct pair *p = *state;
    enum { DIM = 32, HALF = DIM / 2, ROWS = 9, HEADS = 5, N = ROWS * HEADS * DIM };
    float *x = random_bf16(N, 2.0f), *w = random_floats(DIM, 1.0f), *angles = random_floats(2 * ROWS * HALF, 1.0f);
    struct kernels *k = p->cuda;
    param *weight = param_with(k, w, DIM), *tables = param_with(k, angles, 2 * ROWS * HALF);
    struct head_part parts[HEAD_PARTS];
    act *alone[HEAD_PARTS];
    static const int rows[HEAD_PARTS] = {2, 0, ROWS, 1}, heads[HEAD_PARTS] = {HEADS, 1, 3, 2};
    for (int i = 0; i < HEAD_PARTS; i++) {
        alone[i] = act_with(k, x, N);
        parts[i] = (struct head_part){.x = alone[i], .rows = rows[i], .stride = HEADS * DIM, .heads = heads[i],
                                      .weight = i == 2 ? NULL : weight, .cosines = tables,
                                      .sines = param_at(tables, ROWS * HALF)};
        k->head_norm_rope(k, &parts[i], 1, DIM, 1e-6f);
        parts[i].x = act_with(k, x, N);
    }
    k->head_norm_rope(k, parts, HEAD_PARTS, DIM, 1e-6f);
    for (int i = 0; i < HEAD_PARTS; i++) {
        assert_same_bytes_of_act(k, parts[i].x, alone[i], N);
        k->memory_free(k, parts[i].x), k->memory_free(k, alone[i]);
    }
    k->memory_free(k, weight), k->memory_free(k, tables);
    free(x), free(w), free(angles);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_are_normed_and_rotated_as_on_the_cpu),
        cmocka_unit_test(without_a_weight_heads_are_only_rotated),
        cmocka_unit_test(parts_together_give_the_bytes_of_each_alone),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
