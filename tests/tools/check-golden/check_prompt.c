/* check_prompt.c: what is computed without weights. */
#include "base/noise.h"
#include "daemon/engine/model/sampler.h"
#include "kernels/formats/numbers.h"
#include "tests/tools/check-golden/checks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void check_tensor(const struct check *c, const struct tensor_view *tensor, const float *values, size_t n, double bound)
{
    if (tensor_elements(tensor) != n) {
        report_failure(c->report, tensor->name, "%zu values against %llu recorded", n,
                       (unsigned long long)tensor_elements(tensor));
        return;
    }
    float *recorded = golden_floats(tensor);
    report_error(c->report, tensor->name, relative_error(values, recorded, n),
                 golden_bound(c->golden, tensor->name, bound));
    free(recorded);
}

/* The packed sequence may be shorter than the recorded one, by what the engine never runs: the
 * last <|im_end|>, an answer. */
static void check_ids(const struct check *c)
{
    const struct tensor_view *tensor = golden_find(c->golden, "text_ids");
    const struct prompt *prompt = c->plan.prompt;
    if (!tensor)
        return;
    int32_t *ids = golden_integers(tensor);
    int count = (int)tensor_elements(tensor), expected = count - 1;
    if (prompt->prefix_splits == prompt->split_count) {
        const struct tensor_view *loss = golden_find(c->golden, "ce_loss_indexes");
        int32_t *indexes = loss ? golden_integers(loss) : NULL;
        expected = indexes ? indexes[0] + 1 : count;
        free(indexes);
    }
    int first = 0;
    while (first < expected && first < prompt->tokens && ids[first] == prompt->ids[first])
        first++;
    bool equal = prompt->tokens == expected && first == expected;
    report_equal(c->report, "text_ids", equal, equal ? "%d equal" : "%d of %d equal from the start (%d here)", first,
                 expected, prompt->tokens);
    free(ids);
}

static void check_modalities(const struct check *c)
{
    const struct tensor_view *tensor = golden_find(c->golden, "sample_modality");
    const struct prompt *prompt = c->plan.prompt;
    if (!tensor || (int)tensor_elements(tensor) < prompt->tokens)
        return;
    int32_t *recorded = golden_integers(tensor);
    int wrong = 0;
    for (int i = 0; i < prompt->tokens; i++)
        wrong += recorded[i] != prompt->modalities[i];
    report_equal(c->report, "sample_modality", wrong == 0, "%d of %d differ", wrong, prompt->tokens);
    free(recorded);
}

static void check_splits(const struct check *c)
{
    const struct tensor_view *tensor = golden_find(c->golden, "split_lens");
    const struct prompt *prompt = c->plan.prompt;
    if (!tensor || task_answers(c->golden->task))
        return;
    int32_t *recorded = golden_integers(tensor);
    bool equal = (int)tensor_elements(tensor) == prompt->split_count + 1;
    for (int i = 0; equal && i < prompt->split_count; i++)
        equal = recorded[i] == prompt->splits[i].length;
    report_equal(c->report, "split_lens", equal, "%d splits", prompt->split_count);
    free(recorded);
}

/* Compare recorded positions [3, 1, rows] with the prompt's tokens from `start` on; tokens
 * of `left_out` are skipped. */
static void compare_positions(const struct check *c, const struct tensor_view *tensor, int32_t *const positions[3],
                              int start, int left_out)
{
    const struct prompt *prompt = c->plan.prompt;
    const int rows = (int)(tensor_elements(tensor) / 3);
    int32_t *recorded = golden_integers(tensor);
    int wrong = 0, at = start, row = 0;
    for (; row < rows && at < prompt->tokens; at++) {
        if (prompt->modalities[at] == left_out)
            continue;
        for (int axis = 0; axis < 3; axis++)
            wrong += recorded[axis * rows + row] != positions[axis][at];
        row++;
    }
    report_equal(c->report, tensor->name, wrong == 0 && row > 0, "%d of %d differ", wrong, 3 * row);
    free(recorded);
}

static void check_positions(const struct check *c)
{
    const struct prompt *prompt = c->plan.prompt;
    const bool consistent = c->golden->request.uncond_positions == LANCE_UNCOND_CONSISTENT;
    const struct tensor_view *tensor;
    enum { NOTHING = 127 };
    int uncond = 0;
    for (int i = 0; i < prompt->prefix_splits; i++) {
        if ((tensor = golden_own(c->golden, "prefill.cond.%d.pos", i)))
            compare_positions(c, tensor, prompt->positions, prompt->splits[i].start, NOTHING);
        if (prompt->splits[i].modality == MODALITY_CAPTION)
            continue;
        if ((tensor = golden_own(c->golden, "prefill.uncond.%d.pos", uncond++)))
            compare_positions(c, tensor, consistent ? prompt->uncond_positions : prompt->positions,
                              prompt->splits[i].start, NOTHING);
    }
    if (prompt->prefix_splits == prompt->split_count)
        return;
    /* The dense path records the whole sequence, the other the target block. */
    const int start = consistent ? 0 : prompt->splits[prompt->prefix_splits].start;
    if ((tensor = golden_own(c->golden, "step0.cond.pos")))
        compare_positions(c, tensor, prompt->positions, start, NOTHING);
    if ((tensor = golden_own(c->golden, "step0.uncond.pos")))
        compare_positions(c, tensor, prompt->uncond_positions, start, MODALITY_CAPTION);
}

/* float32 cases on the CPU draw what torch draws; the bf16 cases draw the same and round. */
static void check_noise(const struct check *c)
{
    const struct tensor_view *tensor = golden_own(c->golden, "noise");
    if (!tensor)
        return;
    const size_t n = (size_t)tensor_elements(tensor);
    float *recorded = golden_floats(tensor), *drawn = malloc(n * sizeof *drawn);
    if (!drawn)
        abort();
    noise_torch_cpu(c->golden->request.seed, drawn, n);
    if (!strcmp(c->golden->mode, "bf16"))
        bf16_round(drawn, n);
    size_t wrong = 0;
    for (size_t i = 0; i < n; i++)
        wrong += drawn[i] != recorded[i];
    report_equal(c->report, "noise", wrong == 0, "%zu of %zu differ", wrong, n);
    free(recorded);
    free(drawn);
}

static void check_schedule(const struct check *c)
{
    const struct tensor_view *tensor = golden_find(c->golden, "timesteps");
    if (tensor && c->plan.timesteps)
        check_tensor(c, tensor, c->plan.timesteps, (size_t)c->golden->request.num_inference_steps + 1, 1e-6);
}

void check_prompt(const struct check *c)
{
    check_ids(c);
    check_modalities(c);
    check_splits(c);
    check_positions(c);
    check_noise(c);
    check_schedule(c);
}
