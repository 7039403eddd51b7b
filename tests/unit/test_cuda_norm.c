/* The CUDA backend's norms beside the CPU's. */
#include "cuda_fixture.h"

struct shape {
    int rows, width;
    size_t start; /* elements in front, so that the row is not aligned */
};
static const struct shape shapes[] = {{1, 1, 0},    {3, 5, 0},     {9, 48, 0},   {17, 96, 8}, {17, 96, 1}, {2, 1024, 0},
                                      {3, 1032, 0}, {2, 1029, 0}, {1, 2048, 0}, {5, 2048, 4}, {8, 33, 2}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

enum kind { RMS, CHANNEL, CHANNEL_SILU, KINDS };

static void apply(struct kernels *k, enum kind kind, const struct shape *s, const act *x, const param *weight, act *y)
{
    if (kind == RMS)
        k->rms_norm(k, x, s->rows, s->width, weight, 1e-6f, y);
    else
        k->channel_norm(k, x, (size_t)s->rows, s->width, weight, kind == CHANNEL_SILU, y);
}

static void compare(struct pair *p, enum kind kind, const struct shape *s, float amplitude, bool in_place)
{
    const size_t n = (size_t)s->rows * (size_t)s->width, all = n + s->start;
    float *x = random_bf16(all, amplitude), *w = random_floats((size_t)s->width, 2.0f);
    struct kernels *k[2] = {p->cuda, p->cpu};
    act *result[2];
    for (int i = 0; i < 2; i++) {
        act *in = act_with(k[i], x, all);
        param *weight = param_with(k[i], w, (size_t)s->width);
        result[i] = in_place ? in : act_with(k[i], x, all);
        apply(k[i], kind, s, act_at(k[i], in, s->start), weight, act_at(k[i], result[i], s->start));
        k[i]->memory_free(k[i], weight);
        if (!in_place)
            k[i]->memory_free(k[i], in);
    }
    assert_same_act(p, result[0], result[1], all, BF16_ROUNDING, 1.01 * BF16_ROUNDING);
    free(x), free(w);
}

static void norms_agree_with_the_cpu_for_every_width_and_alignment(void **state)
{
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < SHAPES; i++)
            compare(*state, kind, &shapes[i], 3.0f, false);
}

static void norms_may_work_in_place(void **state)
{
    for (int kind = 0; kind < KINDS; kind++)
        for (size_t i = 0; i < SHAPES; i++)
            compare(*state, kind, &shapes[i], 3.0f, true);
}

static void rows_of_zeros_and_of_large_values_stay_finite(void **state)
{
    for (int kind = 0; kind < KINDS; kind++) {
        compare(*state, kind, &(struct shape){2, 64, 0}, 0.0f, false);
        compare(*state, kind, &(struct shape){2, 64, 0}, 1e16f, false);
        compare(*state, kind, &(struct shape){2, 2048, 0}, 1e16f, false);
    }
}

/* At the real model's sizes, where a card is there to do it. */
static void norms_agree_at_the_sizes_of_the_real_model(void **state)
{
    if (!on_card(*state))
        skip();
    compare(*state, RMS, &(struct shape){4608, 2048, 0}, 5.0f, false);
    compare(*state, CHANNEL_SILU, &(struct shape){768 * 768, 256, 0}, 5.0f, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms_agree_with_the_cpu_for_every_width_and_alignment),
        cmocka_unit_test(norms_may_work_in_place),
        cmocka_unit_test(rows_of_zeros_and_of_large_values_stay_finite),
        cmocka_unit_test(norms_agree_at_the_sizes_of_the_real_model),
    };
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
