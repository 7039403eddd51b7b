/* scores.c: see scores.h. */
#include "tools/lance-quant/scores.h"

#include <math.h>
#include <string.h>

#include "tools/lance-quant/likeness.h"

/* Of one sample, or the means of a task. */
struct score {
    double latents, psnr, ssim, fine;     /* pictures and clips; fine: energy over the reference's */
    double same, agreement, divergence;   /* answers; divergence: tokens before the first other one */
    double lost, their_lost;              /* -log of the probabilities of the reference's answers, a token */
};

static int score_frames(const struct outcome *ours, const struct outcome *theirs, struct score *score,
                        struct error *error)
{
    const size_t frame = 3 * (size_t)ours->height * (size_t)ours->width;
    double energy = 0, wanted = 0, one;
    int code = 0;
    score->latents = likeness_relative_error(ours->latents, theirs->latents, ours->latent_count);
    score->psnr = likeness_psnr(ours->pixels, theirs->pixels, (size_t)ours->frames * frame);
    for (int f = 0; f < ours->frames && code == 0; f++) {
        const uint8_t *a = ours->pixels + (size_t)f * frame, *b = theirs->pixels + (size_t)f * frame;
        score->ssim += likeness_ssim(a, b, ours->height, ours->width) / ours->frames;
        code = likeness_fine_energy(a, ours->height, ours->width, &one, error);
        energy += one;
        if (code == 0)
            code = likeness_fine_energy(b, ours->height, ours->width, &one, error);
        wanted += one;
    }
    score->fine = wanted > 0 ? energy / wanted : 1;
    return code;
}

static void score_answer(const struct outcome *ours, const struct outcome *theirs, struct score *score)
{
    const int longer = ours->tokens > theirs->tokens ? ours->tokens : theirs->tokens;
    const int shorter = ours->tokens < theirs->tokens ? ours->tokens : theirs->tokens;
    int equal = 0, first = 0;
    while (first < shorter && ours->token_ids[first] == theirs->token_ids[first])
        first++;
    for (int i = 0; i < shorter; i++)
        equal += ours->token_ids[i] == theirs->token_ids[i];
    score->same = strcmp(ours->text, theirs->text) == 0;
    score->agreement = longer > 0 ? (double)equal / longer : 1;
    score->divergence = first;
    score->lost = theirs->tokens > 0 ? ours->lost / theirs->tokens : 0;
    score->their_lost = theirs->tokens > 0 ? theirs->lost / theirs->tokens : 0;
}

static int score_one(const struct outcome *ours, const struct outcome *theirs, struct score *score, struct error *error)
{
    *score = (struct score){0};
    if (ours->text && theirs->text) {
        score_answer(ours, theirs, score);
        return 0;
    }
    if (ours->latent_count != theirs->latent_count || ours->frames != theirs->frames ||
        ours->height != theirs->height || ours->width != theirs->width || !ours->pixels)
        return error_set(error, ERROR_INTERNAL, "the two models made results of different shapes");
    return score_frames(ours, theirs, score, error);
}

static void add_score(struct score *sum, const struct score *one, double weight)
{
    sum->latents += weight * one->latents;
    sum->psnr += weight * one->psnr;
    sum->ssim += weight * one->ssim;
    sum->fine += weight * one->fine;
    sum->same += weight * one->same;
    sum->agreement += weight * one->agreement;
    sum->divergence += weight * one->divergence;
    sum->lost += weight * one->lost;
    sum->their_lost += weight * one->their_lost;
}

static cJSON *score_json(enum lance_task task, const struct score *score, int samples)
{
    cJSON *json = json_object();
    json_add_text(json, "task", lance_task_name(task));
    json_add_number(json, "samples", samples);
    if (task_answers(task)) {
        json_add_number(json, "same_answers", score->same);
        json_add_number(json, "token_agreement", score->agreement);
        json_add_number(json, "tokens_before_divergence", score->divergence);
        json_add_number(json, "perplexity", exp(score->lost));
        json_add_number(json, "reference_perplexity", exp(score->their_lost));
    } else {
        json_add_number(json, "latent_error", score->latents);
        json_add_number(json, "psnr_db", score->psnr);
        json_add_number(json, "ssim", score->ssim);
        json_add_number(json, "fine_energy", score->fine);
    }
    return json;
}

int scores_add(cJSON *tasks, cJSON *list, const struct samples *samples, const struct outcome *ours,
               const struct outcome *theirs, struct error *error)
{
    struct score sums[LANCE_TASK_COUNT] = {0}, one;
    int counts[LANCE_TASK_COUNT] = {0};
    for (int i = 0; i < samples->count; i++)
        counts[samples->list[i].task]++;
    for (int i = 0; i < samples->count; i++) {
        const enum lance_task task = samples->list[i].task;
        const int code = score_one(&ours[i], &theirs[i], &one, error);
        if (code != 0)
            return code;
        add_score(&sums[task], &one, 1.0 / counts[task]);
        json_append(list, score_json(task, &one, 1));
    }
    for (int task = 0; task < LANCE_TASK_COUNT; task++)
        if (counts[task] > 0)
            json_append(tasks, score_json((enum lance_task)task, &sums[task], counts[task]));
    return 0;
}
