/* attention_fixture.h: what the tests of attention on a card share: problems with random tensors, and the
 * comparison with the CPU's results.
 *
 * On the card the weights of a row's keys are rounded to bf16 before they multiply the values, and the result once
 * more: each value may be off by half a unit of the last place twice, in addition to the order of the float32 sums. The
 * error of the weights is random, so that over a whole result the two roundings stay below 1.5 of one. */
#ifndef LANCE_TESTS_ATTENTION_FIXTURE_H
#define LANCE_TESTS_ATTENTION_FIXTURE_H

#include "tests/unit/cuda_fixture.h"

#define LIMIT_ALL (1.5 * BF16_ROUNDING)
#define LIMIT_EACH (4.0 * BF16_ROUNDING)

struct shape {
    int q_rows, heads, kv_heads, head_dim;
    bool causal;
    int segments, segment_rows[ATTENTION_MAX_SEGMENTS];
    float amplitude; /* of queries and keys */
    int skip;        /* elements in front of every tensor, and more to each stride */
};

/* One problem on one backend. */
struct tensors {
    act *memory[2 * ATTENTION_MAX_SEGMENTS + 2];
    int count;
};

static inline const act *place(struct kernels *k, struct tensors *t, const float *values, size_t n, int skip)
{
    act *memory = act_with(k, values, n);
    t->memory[t->count++] = memory;
    return act_at(k, memory, (size_t)skip);
}

static inline void free_tensors(struct kernels *k, struct tensors *t)
{
    while (t->count > 0)
        k->memory_free(k, t->memory[--t->count]);
}

static inline size_t result_size(const struct shape *s)
{
    return (size_t)s->skip + (size_t)s->q_rows * (size_t)(s->heads * s->head_dim + s->skip);
}

/* Random tensors and the problem they make. */
static inline struct attention make_problem(struct kernels *k, const struct shape *s, struct tensors *t)
{
    struct attention a = {.q_rows = s->q_rows, .heads = s->heads, .kv_heads = s->kv_heads, .head_dim = s->head_dim,
                          .causal = s->causal, .segments = s->segments,
                          .q_stride = s->heads * s->head_dim + s->skip, .out_stride = s->heads * s->head_dim + s->skip,
                          .scale = 1.0f / sqrtf((float)s->head_dim)};
    size_t n = (size_t)s->skip + (size_t)s->q_rows * (size_t)a.q_stride;
    float *values = random_bf16(n, s->amplitude);
    a.q = place(k, t, values, n, s->skip);
    free(values);
    for (int i = 0; i < s->segments; i++) {
        int stride = s->kv_heads * s->head_dim + s->skip + 8 * i;
        n = (size_t)s->skip + (size_t)s->segment_rows[i] * (size_t)stride;
        values = random_bf16(n ? n : 1, s->amplitude);
        a.segment[i].keys = place(k, t, values, n ? n : 1, s->skip);
        free(values);
        values = random_bf16(n ? n : 1, 1.0f);
        a.segment[i].values = place(k, t, values, n ? n : 1, s->skip);
        free(values);
        a.segment[i].rows = s->segment_rows[i];
        a.segment[i].stride = stride;
    }
    n = result_size(s);
    values = random_bf16(n, 1.0f);
    a.out = (act *)(uintptr_t)place(k, t, values, n, s->skip);
    free(values);
    return a;
}

/* All problems in one call, on both backends. What lies between the rows of a result must stay as it was. */
static inline void check(struct pair *p, const struct shape *shapes, int count)
{
    struct kernels *k[2] = {p->cuda, p->cpu};
    struct tensors *tensors[2];
    uint64_t seed = *random_state();
    for (int i = 0; i < 2; i++) {
        *random_state() = seed;
        struct attention *problems = checked_alloc((size_t)count * sizeof *problems);
        tensors[i] = calloc((size_t)count, sizeof *tensors[i]);
        assert_non_null(tensors[i]);
        for (int j = 0; j < count; j++)
            problems[j] = make_problem(k[i], &shapes[j], &tensors[i][j]);
        k[i]->attention(k[i], problems, count);
        free(problems);
    }
    for (int j = 0; j < count; j++) {
        int last = tensors[0][j].count - 1;
        assert_same_act(p, tensors[0][j].memory[last], tensors[1][j].memory[last], result_size(&shapes[j]), LIMIT_ALL,
                        LIMIT_EACH);
        for (int i = 0; i < 2; i++) {
            tensors[i][j].count = last; /* the result is freed already */
            free_tensors(k[i], &tensors[i][j]);
        }
    }
    free(tensors[0]), free(tensors[1]);
}

#endif
