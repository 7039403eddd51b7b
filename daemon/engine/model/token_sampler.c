/* token_sampler.c: see token_sampler.h.
 *
 * A draw adds up the softmax from the largest logit down, so that the order of the sums, and with it every token, is
 * that of a full sort. What that takes is kept small: tokens too unlikely to change a sum are left out before, so are
 * those below top_k's, and the rest is sorted by counting digits. */
#include "daemon/engine/model/token_sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DIGIT_BITS = 11, DIGIT_VALUES = 1 << DIGIT_BITS, DIGITS = 3 /* of a rank's 32 bits */ };

/* exp(-40) is less than half of the last bit of 1, which the sum begins with: adding it, or less, changes no sum. */
static const double LEAST_EXPONENT = -40;

struct candidate {
    uint32_t rank; /* of the logit: the largest has the least */
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

/* Smaller for a larger logit, the same for equal ones. */
static uint32_t rank_of(float logit)
{
    uint32_t bits;
    logit += 0.0f; /* -0 becomes 0 */
    memcpy(&bits, &logit, sizeof bits);
    return bits >> 31 ? bits : ~bits & 0x7fffffffu;
}

static unsigned digit_of(struct candidate candidate, int digit)
{
    return candidate.rank >> digit * DIGIT_BITS & (DIGIT_VALUES - 1);
}

/* Divide positive logits of tokens already said by the penalty, multiply negative ones; each token once. */
static void penalise(const struct token_sampler_options *o, float *logits, int count, const int32_t *previous,
                     int previous_count)
{
    for (int i = 0; i < previous_count && o->repetition_penalty != 1; i++) {
        int first = 0;
        while (previous[first] != previous[i])
            first++;
        int32_t id = previous[i];
        if (first == i && id < count)
            logits[id] =
                (float)(logits[id] > 0 ? logits[id] / o->repetition_penalty : logits[id] * o->repetition_penalty);
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

/* The tokens that can be drawn, by id. How many. */
static int find_candidates(double temperature, const float *logits, int count, float best, struct candidate *candidates)
{
    const double least = LEAST_EXPONENT * temperature;
    int n = 0;
    for (int i = 0; i < count; i++)
        if (!isnan(logits[i]) && !(logits[i] - best < least))
            candidates[n++] = (struct candidate){rank_of(logits[i]), i};
    return n;
}

/* How many candidates have each value of a digit. */
static void count_digits(const struct candidate *candidates, int n, int digit, int counts[DIGIT_VALUES])
{
    memset(counts, 0, DIGIT_VALUES * sizeof *counts);
    for (int i = 0; i < n; i++)
        counts[digit_of(candidates[i], digit)]++;
}

/* Leave out candidates that are not among the k first, judged by the highest digit alone. How many stay. */
static int keep_first(struct candidate *candidates, int n, int k)
{
    int counts[DIGIT_VALUES], before = 0, stay = 0;
    unsigned last = 0;
    count_digits(candidates, n, DIGITS - 1, counts);
    while (last < DIGIT_VALUES && (before += counts[last]) < k)
        last++;
    for (int i = 0; i < n; i++)
        if (digit_of(candidates[i], DIGITS - 1) <= last)
            candidates[stay++] = candidates[i];
    return stay;
}

/* Sort by rank, equal ones by id, as which they come: digit by digit, from the lowest. Where the result is. */
static const struct candidate *sort_candidates(struct candidate *candidates, struct candidate *spare, int n)
{
    for (int digit = 0; digit < DIGITS; digit++) {
        int place[DIGIT_VALUES], before = 0;
        count_digits(candidates, n, digit, place);
        for (int value = 0; value < DIGIT_VALUES; value++) {
            const int here = place[value];
            place[value] = before;
            before += here;
        }
        for (int i = 0; i < n; i++)
            spare[place[digit_of(candidates[i], digit)]++] = candidates[i];
        struct candidate *sorted = spare;
        spare = candidates;
        candidates = sorted;
    }
    return candidates;
}

/* Draw from sorted candidates by their softmax, cut at top_k and top_p. sums: [count], scratch. */
static int32_t draw(const struct token_sampler_options *o, const float *logits, const struct candidate *sorted,
                    int count, double *sums, int position)
{
    const float best = logits[sorted[0].id];
    double sum = 0, kept = 0;
    if (o->top_k > 0 && o->top_k < count)
        count = o->top_k;
    for (int i = 0; i < count; i++)
        sums[i] = sum += exp((logits[sorted[i].id] - best) / o->temperature);
    int n = 0;
    while (n < count && (n == 0 || kept < o->top_p * sum))
        kept = sums[n++];
    const double target = uniform(o->seed, position) * kept;
    for (int i = 0; i < n; i++)
        if (target < sums[i])
            return sorted[i].id;
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
    struct candidate *candidates = malloc(2 * (size_t)count * sizeof *candidates);
    double *sums = malloc((size_t)count * sizeof *sums);
    int code = candidates && sums ? 0 : error_set(error, ERROR_NO_MEMORY, "no memory to sort %d tokens", count);
    if (!code) {
        int n = find_candidates(o->temperature, logits, count, logits[best], candidates);
        if (o->top_k > 0 && o->top_k < n)
            n = keep_first(candidates, n, o->top_k);
        *token = draw(o, logits, sort_candidates(candidates, candidates + count, n), n, sums, previous_count);
    }
    free(candidates);
    free(sums);
    return code;
}
