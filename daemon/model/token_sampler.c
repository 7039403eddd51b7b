/* token_sampler.c: see token_sampler.h. */
#include "daemon/model/token_sampler.h"

#include <math.h>
#include <stdlib.h>

struct candidate {
    float logit;
    int32_t id;
};

/* A number in [0, 1) that depends on seed and position alone (SplitMix64). */
static double uniform(uint64_t seed, int position)
{
    uint64_t z = seed + ((uint64_t)position + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static int by_logit(const void *left, const void *right)
{
    const struct candidate *a = left, *b = right;
    if (a->logit != b->logit)
        return a->logit > b->logit ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

/* Divide positive logits of tokens already said by the penalty, multiply negative ones; each token once. */
static void penalise(const struct token_sampler_options *o, float *logits, int count, const int32_t *previous, int previous_count)
{
    for (int i = 0; i < previous_count && o->repetition_penalty != 1; i++) {
        int first = 0;
        while (previous[first] != previous[i])
            first++;
        int32_t id = previous[i];
        if (first == i && id < count)
            logits[id] = (float)(logits[id] > 0 ? logits[id] / o->repetition_penalty : logits[id] * o->repetition_penalty);
    }
}

static int largest(const float *logits, int count)
{
    int best = -1;
    for (int i = 0; i < count; i++)
        if (!isnan(logits[i]) && (best < 0 || logits[i] > logits[best]))
            best = i;
    return best;
}

/* Draw from sorted candidates by their softmax, cut at top_k and top_p. */
static int32_t draw(const struct token_sampler_options *o, const struct candidate *sorted, int count, int position)
{
    if (o->top_k > 0 && o->top_k < count)
        count = o->top_k;
    double total = 0, kept = 0;
    for (int i = 0; i < count; i++)
        total += exp((sorted[i].logit - sorted[0].logit) / o->temperature);
    int n = 0;
    while (n < count && (n == 0 || kept < o->top_p * total))
        kept += exp((sorted[n++].logit - sorted[0].logit) / o->temperature);
    double target = uniform(o->seed, position) * kept, sum = 0;
    for (int i = 0; i < n; i++) {
        sum += exp((sorted[i].logit - sorted[0].logit) / o->temperature);
        if (target < sum)
            return sorted[i].id;
    }
    return sorted[n - 1].id;
}

int token_sampler_next(const struct token_sampler_options *o, float *logits, int count, const int32_t *previous,
                       int previous_count, int32_t *token, struct error *error)
{
    penalise(o, logits, count, previous, previous_count);
    int best = largest(logits, count);
    if (best < 0)
        return error_set(error, ERROR_INTERNAL, "the model gave no number for any token; are its weights damaged?");
    *token = best;
    if (o->temperature == 0)
        return 0;
    struct candidate *candidates = malloc((size_t)count * sizeof *candidates);
    if (!candidates)
        return error_set(error, ERROR_NO_MEMORY, "no memory to sort %d tokens", count);
    int n = 0;
    for (int i = 0; i < count; i++)
        if (!isnan(logits[i]))
            candidates[n++] = (struct candidate){logits[i], i};
    qsort(candidates, (size_t)n, sizeof *candidates, by_logit);
    *token = draw(o, candidates, n, previous_count);
    free(candidates);
    return 0;
}
