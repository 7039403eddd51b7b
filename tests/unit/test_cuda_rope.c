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
        k[i]->head_norm_rope(k[i], act_at(k[i], result[i], s->start), s->rows, (int)stride, s->heads, s->head_dim,
                             with_norm ? weight : NULL, 1e-6f, c, sn);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_are_normed_and_rotated_as_on_the_cpu),
        cmocka_unit_test(without_a_weight_heads_are_only_rotated),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
