/* attention_rows.c: see attention_rows.h. */
#include "kernels/cpu/attention_rows.h"

#include <math.h>
#include <string.h>

static int least(int a, int b)
{
    return a < b ? a : b;
}

int attention_keys(const struct attention *a)
{
    int keys = 0;
    for (int s = 0; s < a->segments; s++)
        keys += a->segment[s].rows;
    return keys;
}

struct attention_rows attention_rows_of(const struct attention_work *work, int index, int *kv_head)
{
    int low = 0, high = work->count; /* the last cut that starts at or before this task */
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (work->cuts[middle].first_task <= index)
            low = middle;
        else
            high = middle;
    }
    const struct attention_cut *cut = &work->cuts[low];
    const struct attention *a = cut->problem;
    int group = a->heads / a->kv_heads, keys = attention_keys(a);
    int first_query = (index - cut->first_task) % cut->blocks * cut->queries;
    *kv_head = (index - cut->first_task) / cut->blocks;
    return (struct attention_rows){.micro = work->cpu->micro,
                                   .problem = a,
                                   .count = least(cut->queries, a->q_rows - first_query) * group,
                                   .group = group,
                                   .first_query = first_query,
                                   .keys = keys,
                                   .keys_before = keys - a->q_rows,
                                   .packed_keys = cut->packed ? cut->packed + (size_t)*kv_head *
                                                                                  attention_head_floats(a) : NULL,
                                   .dim = (size_t)a->head_dim,
                                   .wide = attention_wide(a)};
}

void attention_clear(struct attention_rows *r)
{
    memset(r->output, 0, (size_t)r->count * r->wide * sizeof *r->output);
    for (int i = 0; i < r->count; i++) {
        r->maximum[i] = -INFINITY;
        r->sum[i] = 0.0f;
    }
}

void attention_finish(const struct attention_rows *r, int head)
{
    const struct attention *a = r->problem;
    for (int i = 0; i < r->count; i++) {
        float *out = floats(a->out) + (size_t)(r->first_query + i / r->group) * (size_t)a->out_stride +
                     (size_t)(head + i % r->group) * r->dim;
        float factor = r->sum[i] > 0.0f ? 1.0f / r->sum[i] : 0.0f;
        const float *from = r->output + (size_t)i * r->wide;
        for (size_t d = 0; d < r->dim; d++)
            out[d] = from[d] * factor;
    }
}

void attention_find_rows(const struct attention *a, int head, int first, int count, const float **keys,
                         const float **values)
{
    int segment = 0;
    for (int i = 0; i < count; i++, first++) {
        while (first >= a->segment[segment].rows)
            first -= a->segment[segment++].rows;
        size_t at = (size_t)first * (size_t)a->segment[segment].stride + (size_t)head * (size_t)a->head_dim;
        keys[i] = floats(a->segment[segment].keys) + at;
        values[i] = floats(a->segment[segment].values) + at;
    }
}

int attention_visible(const struct attention_rows *r, int row, int keys)
{
    if (!r->problem->causal)
        return keys;
    int seen = r->keys_before + r->first_query + row / r->group + 1;
    return seen < 0 ? 0 : least(seen, keys);
}

void attention_soften(struct attention_rows *r, int row, int rows, float *scores, int first, int count, int keys)
{
    for (int i = row; i < row + rows; i++, scores += KEY_BLOCK) {
        int seen = attention_visible(r, i, keys) - first;
        seen = seen < 0 ? 0 : least(seen, count);
        memset(scores + seen, 0, (size_t)(count - seen) * sizeof *scores);
        if (!seen)
            continue;
        float maximum = r->micro->max(scores, (size_t)seen);
        if (maximum > r->maximum[i]) {
            if (r->sum[i] > 0.0f) {
                float factor = expf(r->maximum[i] - maximum);
                r->sum[i] *= factor;
                r->micro->scale(r->output + (size_t)i * r->wide, r->wide, factor);
            }
            r->maximum[i] = maximum;
        }
        r->sum[i] += r->micro->exp_sum(scores, (size_t)seen, r->maximum[i]);
    }
}
