/* Embedding rows on the CUDA backend beside the CPU's, from every form that a table can have. */
#include "cuda_fixture.h"
#include "matrix_fixture.h"

struct table {
    enum weight_format format;
    int rows, width, group;
    bool fp8;
};

static void check_table(struct pair *p, const struct table *t, int tokens)
{
    struct matrix m = make_matrix(t->format, t->rows, t->width, t->group, t->fp8, WEIGHT_F32, false);
    const size_t n = (size_t)tokens * (size_t)t->width;
    int32_t *ids = checked_alloc((size_t)tokens * sizeof *ids);
    for (int i = 0; i < tokens; i++)
        ids[i] = i < 2 ? (i ? t->rows - 1 : 0) : (int32_t)(random_u32() % (uint32_t)t->rows);
    float *before = random_bf16(n, 1.0f);
    struct kernels *k[2] = {p->cuda, p->cpu};
    act *result[2];
    for (int i = 0; i < 2; i++) {
        struct linear *w = NULL;
        struct error error = {0};
        if (k[i]->linear_open(k[i], &w, &m.source, &error))
            fail_msg("%s", error.text);
        result[i] = act_with(k[i], before, n);
        int32_t *lent = checked_alloc((size_t)tokens * sizeof *lent); /* borrowed during the call alone */
        memcpy(lent, ids, (size_t)tokens * sizeof *lent);
        k[i]->embed(k[i], w, lent, tokens, result[i]);
        memset(lent, 0x7f, (size_t)tokens * sizeof *lent);
        free(lent);
        if (k[i]->sync(k[i], &error))
            fail_msg("%s", error.text);
        k[i]->linear_close(k[i], w);
    }
    assert_same_act(p, result[0], result[1], n, 1.02 * BF16_ROUNDING, 1.02 * BF16_ROUNDING);
    free(ids), free(before);
    free_matrix(&m);
}

static void rows_of_every_kind_of_table_are_the_cpus(void **state)
{
    static const struct table tables[] = {
        {WEIGHT_F32, 37, 70, 0, false},      {WEIGHT_BF16, 50, 128, 0, false},   {WEIGHT_AWQ_INT4, 33, 256, 128, false},
        {WEIGHT_AWQ_INT4, 20, 192, 64, false}, {WEIGHT_MLX_INT4, 40, 320, 32, false}, {WEIGHT_NVFP4, 18, 96, 16, false},
        {WEIGHT_NVFP4, 64, 64, 16, true},    {WEIGHT_AWQ_INT4, 19, 24, 8, false},   {WEIGHT_INT8, 33, 256, 128, false},
        {WEIGHT_MLX_INT8, 20, 192, 64, false}, {WEIGHT_AWQ_INT8, 19, 24, 8, false},
    };
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        for (int tokens = 1; tokens < 80; tokens = 6 * tokens + 1)
            check_table(*state, &tables[i], tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows_of_every_kind_of_table_are_the_cpus)};
    return cmocka_run_group_tests(tests, open_pair, close_pair);
}
