/* check_generation.c: the prefix and each denoising step, fed the recorded inputs. */
#include "daemon/engine/model/sampler.h"
#include "tests/tools/check-golden/checks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Everything alive while a case's generation is checked. */
struct generation {
    const struct check *check;
    struct kernels *kernels;
    size_t hidden, channels, cells; /* cells of the target */
    struct prefix *prefix;
    struct decoder_workspace *workspace;
    struct denoiser *denoiser;
    act *vit_tokens, *reference_latents, *reference_positions;
    param *x, *v;
    float *layer[2], *last[2]; /* traces of two branches */
};

/* A device copy of a recorded tensor. */
static int upload(struct generation *g, act **out, const float *values, size_t n, struct error *error)
{
    int code = g->kernels->memory_alloc(g->kernels, (void **)out, n * g->kernels->act_bytes, error);
    if (!code)
        g->kernels->upload(g->kernels, *out, values, n);
    return code;
}

static int upload_inputs(struct generation *g, struct error *error)
{
    const struct golden *golden = g->check->golden;
    const struct job_plan *plan = &g->check->plan;
    const struct tensor_view *vit = golden_find(golden, "vit.0.out"), *latent = golden_find(golden, "vae_enc.0.latent");
    int code = 0;
    if (plan->sees && vit) {
        float *values = golden_floats(vit);
        code = upload(g, &g->vit_tokens, values, (size_t)tensor_elements(vit), error);
        free(values);
    }
    if (!code && task_edits(g->check->golden->task) && latent) {
        const size_t n = (size_t)tensor_elements(latent), cells = n / g->channels;
        float *planes = golden_floats(latent), *values = malloc(n * sizeof *values);
        if (!values)
            abort();
        for (size_t i = 0; i < n; i++)
            values[i] = planes[i % g->channels * cells + i / g->channels];
        code = upload(g, &g->reference_latents, values, n, error);
        if (!code)
            code = g->kernels->memory_alloc(g->kernels, (void **)&g->reference_positions,
                                            cells * g->hidden * g->kernels->act_bytes, error);
        if (!code)
            code =
                latent_tokens_positions(g->check->model->latent_tokens, plan->encoded, g->reference_positions, error);
        free(planes);
        free(values);
    }
    return code;
}

/* Hidden states of one sequence in the recorded order (start, cells, end) from rows ordered
 * [und][gen]; sequence s of n. */
static float *in_order(const struct generation *g, const float *rows, size_t cells, int s, int n)
{
    float *out = malloc((cells + 2) * g->hidden * sizeof *out);
    if (!out)
        abort();
    const float *und = rows + 2 * (size_t)s * g->hidden, *gen = rows + (2 * (size_t)n + (size_t)s * cells) * g->hidden;
    memcpy(out, und, g->hidden * sizeof *out);
    memcpy(out + g->hidden, gen, cells * g->hidden * sizeof *out);
    memcpy(out + (cells + 1) * g->hidden, und + g->hidden, g->hidden * sizeof *out);
    return out;
}

static void check_rows(const struct generation *g, const struct tensor_view *tensor, const float *rows,
                       const struct prompt_split *split)
{
    if (!tensor)
        return;
    const size_t count = (size_t)tensor_elements(tensor) / g->hidden;
    float *ordered = split->attention == SPLIT_FULL_NOISE ? in_order(g, rows, count - 2, 0, 1) : NULL;
    check_tensor(g->check, tensor, ordered ? ordered : rows, count * g->hidden, SINGLE_STAGE_BOUND);
    free(ordered);
}

static int check_prefix(struct generation *g, struct error *error)
{
    const struct golden *golden = g->check->golden;
    const struct prompt *prompt = g->check->plan.prompt;
    const struct prefix_inputs inputs = {g->vit_tokens, g->reference_latents, g->reference_positions};
    const struct decoder_trace traces[2] = {{g->layer[0], g->last[0]}, {g->layer[1], g->last[1]}};
    bool common = true;
    for (int i = 0, uncond = 0; i < prompt->prefix_splits; i++) {
        const struct prompt_split *split = &prompt->splits[i];
        int code = prefix_run(g->prefix, i, g->workspace, &inputs, traces, error);
        if (code)
            return code;
        common = common && split->modality != MODALITY_CAPTION;
        check_rows(g, golden_own(golden, "prefill.cond.%d.h0", i), g->layer[0], split);
        check_rows(g, golden_own(golden, "prefill.cond.%d.h_last", i), g->last[0], split);
        if (split->modality == MODALITY_CAPTION)
            continue;
        check_rows(g, golden_own(golden, "prefill.uncond.%d.h0", uncond), g->layer[!common], split);
        check_rows(g, golden_own(golden, "prefill.uncond.%d.h_last", uncond), g->last[!common], split);
        uncond++;
    }
    return 0;
}

/* A recorded trace may hold the whole sequence (the dense path): then the target block lies before its last row. */
static void check_step_rows(const struct generation *g, const struct tensor_view *tensor, const float *rows, int s,
                            int n)
{
    if (!tensor)
        return;
    const size_t block = (g->cells + 2) * g->hidden, all = (size_t)tensor_elements(tensor);
    float *ordered = in_order(g, rows, g->cells, s, n), *recorded = golden_floats(tensor);
    const size_t start = all == block ? 0 : all - g->hidden - block;
    if (all < block)
        report_failure(g->check->report, tensor->name, "%zu values here", block);
    else
        report_error(g->check->report, tensor->name, relative_error(ordered, recorded + start, block),
                     golden_bound(g->check->golden, tensor->name, SINGLE_STAGE_BOUND));
    free(ordered);
    free(recorded);
}

static void check_velocity(const struct generation *g, const struct tensor_view *tensor, const act *v, float *host)
{
    if (!tensor || !v)
        return;
    g->kernels->download(g->kernels, host, v, g->cells * g->channels);
    check_tensor(g->check, tensor, host, g->cells * g->channels, SINGLE_STAGE_BOUND);
}

/* One step from the recorded x_t; `x` [cells, channels] is the target's part of it. */
static int check_step(struct generation *g, int step, const float *x, float *host, struct error *error)
{
    const struct golden *golden = g->check->golden;
    const struct job_plan *plan = &g->check->plan;
    const struct lance_request *r = &golden->request;
    const float t = plan->timesteps[step];
    const bool guided = sampler_is_guided(t, r->guidance_scale, r->guidance_interval);
    const struct decoder_trace trace = {g->layer[0], g->last[0]};
    const act *cond, *uncond;
    struct kernels *k = g->kernels;
    k->param_upload(k, g->x, x, g->cells * g->channels);
    int code = denoiser_velocity(g->denoiser, g->x, t, guided, step == 0 ? &trace : NULL, &cond, &uncond, error);
    if (code)
        return code;
    if (step == 0) {
        const int n = guided ? 2 : 1;
        check_step_rows(g, golden_own(golden, "step0.cond.h0"), g->layer[0], 0, n);
        check_step_rows(g, golden_own(golden, "step0.cond.h_last"), g->last[0], 0, n);
        if (guided) {
            check_step_rows(g, golden_own(golden, "step0.uncond.h0"), g->layer[0], 1, n);
            check_step_rows(g, golden_own(golden, "step0.uncond.h_last"), g->last[0], 1, n);
        }
    }
    check_velocity(g, golden_own(golden, "step%d.cond.v", step), cond, host);
    check_velocity(g, golden_own(golden, "step%d.uncond.v", step), uncond, host);
    const struct tensor_view *combined = golden_own(golden, "step%d.v", step);
    if (!combined)
        return 0;
    const struct guided_step update = {
        .x = g->x, .v_cond = cond, .v_uncond = uncond, .rows = (int)g->cells, .width = (int)g->channels,
        .first_row = plan->condition_frames * plan->target.height * plan->target.width,
        .guidance_scale = (float)r->guidance_scale, .renorm = r->guidance_renorm,
        .renorm_min = (float)r->guidance_renorm_min, .dt = t - plan->timesteps[step + 1], .v_out = g->v,
    };
    k->guided_step(k, &update);
    k->param_download(k, host, g->v, g->cells * g->channels);
    check_tensor(g->check, combined, host, g->cells * g->channels, SINGLE_STAGE_BOUND);
    return k->sync(k, error);
}

static int check_steps(struct generation *g, struct error *error)
{
    const size_t n = g->cells * g->channels;
    float *host = malloc(n * sizeof *host);
    if (!host)
        abort();
    int code = 0;
    for (int step = 0; !code && step < g->check->golden->request.num_inference_steps; step++) {
        const struct tensor_view *x_t = golden_own(g->check->golden, "step%d.x_t", step);
        if (!x_t || tensor_elements(x_t) < n)
            continue;
        float *x = golden_floats(x_t);
        code = check_step(g, step, x + tensor_elements(x_t) - n, host, error);
        free(x);
    }
    free(host);
    return code;
}

/* Recorded embeddings of single times: time_embed.0 and .1 belong to t = 1, later ones (dense path) to the steps. */
static void check_times(const struct generation *g)
{
    const struct tensor_view *tensor = golden_own(g->check->golden, "time_embed.1");
    if (!tensor || tensor_elements(tensor) != g->hidden)
        return;
    const bool dense = g->check->golden->request.uncond_positions == LANCE_UNCOND_CONSISTENT;
    float *host = malloc(g->hidden * sizeof *host);
    if (!host)
        abort();
    latent_tokens_time(g->check->model->latent_tokens, g->check->plan.timesteps[dense ? 1 : 0],
                       decoder_workspace_x(g->workspace));
    g->kernels->download(g->kernels, host, decoder_workspace_x(g->workspace), g->hidden);
    check_tensor(g->check, tensor, host, g->hidden, SINGLE_STAGE_BOUND);
    free(host);
}

static int generate(struct generation *g, struct error *error)
{
    const struct job_plan *plan = &g->check->plan;
    struct lance_model *model = g->check->model;
    struct kernels *k = g->kernels;
    int code;
    if ((code = upload_inputs(g, error)) ||
        (code = prefix_open(&g->prefix, model->decoder, model->latent_tokens, k, model->prefix_cache, &plan->prefix,
                            error)) ||
        (code = decoder_workspace_open(&g->workspace, model->decoder, plan->workspace_rows, plan->query_rows, error)) ||
        (code = check_prefix(g, error)) || plan->target.frames == 0)
        return code;
    if ((code = k->memory_alloc(k, (void **)&g->x, g->cells * g->channels * sizeof(float), error)) ||
        (code = k->memory_alloc(k, (void **)&g->v, g->cells * g->channels * sizeof(float), error)) ||
        (code = denoiser_open(&g->denoiser, model->decoder, model->latent_tokens, k, g->workspace,
                              prefix_cond(g->prefix), prefix_uncond(g->prefix), &plan->denoiser, error)))
        return code;
    check_times(g);
    return check_steps(g, error);
}

void check_generation(const struct check *c)
{
    struct generation g = {
        .check = c,
        .kernels = c->model->kernels,
        .hidden = (size_t)decoder_hidden_size(c->model->decoder),
        .channels = c->model->latent_tokens ? (size_t)latent_tokens_channels(c->model->latent_tokens) : 1,
        .cells = (size_t)token_grid_cells(c->plan.target),
    };
    for (int i = 0; i < 2; i++) {
        g.layer[i] = malloc((size_t)c->plan.workspace_rows * g.hidden * sizeof(float));
        g.last[i] = malloc((size_t)c->plan.workspace_rows * g.hidden * sizeof(float));
        if (!g.layer[i] || !g.last[i])
            abort();
    }
    struct error error;
    if (generate(&g, &error))
        report_failure(c->report, "generation", "%s", error.text);
    denoiser_close(g.denoiser);
    decoder_workspace_close(g.workspace);
    prefix_close(g.prefix);
    void *const device[] = {g.vit_tokens, g.reference_latents, g.reference_positions, g.x, g.v};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++)
        g.kernels->memory_free(g.kernels, device[i]);
    for (int i = 0; i < 2; i++) {
        free(g.layer[i]);
        free(g.last[i]);
    }
}
