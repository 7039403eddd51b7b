/* Tests of prefix reuse through lance.h, on the tiny checkpoint of tests/golden: what is found again, what is not, and
 * that nobody can tell from the results. */
#include "daemon/engine/lance.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/engine_fixture.h"
#include "tests/unit/small_requests.h"

static struct lance_model *plain, *caching; /* the same checkpoint without and with a prefix cache */
static uint8_t first_pixels[6 * 60 * 80 * 3], other_pixels[6 * 60 * 80 * 3];
static struct lance_media first = {first_pixels, 1, 60, 80, 12}, other = {other_pixels, 1, 60, 80, 12};

enum { ROOMY = 64 << 20 };

static struct lance_model *open_model(uint64_t prefix_cache_bytes, uint64_t memory_limit_bytes)
{
    struct lance_model *model;
    struct error error;
    const struct lance_model_options options = {
        .model_dir = folder, .prefix_cache_bytes = prefix_cache_bytes, .memory_limit_bytes = memory_limit_bytes};
    if (lance_model_open(&model, kernels, &options, &error))
        fail_msg("%s", error.text);
    return model;
}

static int open_all(void **state)
{
    (void)state;
    fill_source(first_pixels, sizeof first_pixels);
    for (size_t i = 0; i < sizeof first_pixels; i++)
        other_pixels[i] = (uint8_t)(255 - first_pixels[i]);
    if (open_checkpoint())
        return -1;
    plain = open_model(0, 0);
    return 0;
}

static int close_all(void **state)
{
    lance_model_close(plain);
    return close_engine(state);
}

static int open_caching(void **state)
{
    (void)state;
    caching = open_model(ROOMY, 0);
    return 0;
}

static int close_caching(void **state)
{
    (void)state;
    lance_model_close(caching);
    return 0;
}

/* A small request that looks at `first`, if at anything. */
static struct lance_request small_of_first(enum lance_task task)
{
    struct lance_request r = small(task);
    if (r.source)
        r.source = &first;
    return r;
}

/* What a finished job came to. */
struct outcome {
    struct lance_job *job;
    struct lance_result result;
    unsigned stages; /* bits of "vit", "encode", "prefix" */
    int prefix_steps;
};
enum { VIT = 1, ENCODE = 2, PREFIX = 4 };

static struct outcome run(struct lance_model *model, const struct lance_request *request)
{
    struct outcome o = {0};
    struct lance_progress progress;
    struct error error;
    int code = lance_job_start(&o.job, model, request, &error), before = 0;
    while (code >= 0 && (code = lance_job_step(o.job, &progress, &error)) >= 0) {
        o.stages |= progress.stage == STAGE_VIT      ? VIT
                    : progress.stage == STAGE_ENCODE ? ENCODE
                    : progress.stage == STAGE_PREFIX ? PREFIX
                                                     : 0u;
        o.prefix_steps = progress.stage == STAGE_PREFIX ? progress.steps : o.prefix_steps;
        assert_true(progress.total_step > before && progress.total_step <= progress.total_steps);
        assert_true(progress.step > 0 && progress.step <= progress.steps);
        before = progress.total_step;
        if (code == LANCE_STEP_DONE)
            break;
    }
    if (code < 0 || lance_job_result(o.job, &o.result, &error))
        fail_msg("%s", error.text);
    assert_int_equal(progress.total_step, progress.total_steps);
    return o;
}

static void assert_same_bytes(const struct lance_result *a, const struct lance_result *b)
{
    assert_int_equal(a->tokens, b->tokens);
    if (a->tokens) {
        assert_memory_equal(a->token_ids, b->token_ids, (size_t)a->tokens * sizeof *a->token_ids);
        assert_string_equal(a->text, b->text);
    } else {
        size_t n = (size_t)48 * (size_t)a->latent_frames * (size_t)a->latent_height * (size_t)a->latent_width;
        assert_memory_equal(a->latents, b->latents, n * sizeof *a->latents);
        assert_memory_equal(a->pixels, b->pixels, (size_t)a->frames * (size_t)a->height * (size_t)a->width * 3);
    }
}

/* Run the request with and without a cache; it must come to the same. Returns the stages that the cache left. */
static unsigned stages_with_cache(const struct lance_request *r)
{
    struct outcome want = run(plain, r), got = run(caching, r);
    assert_same_bytes(&got.result, &want.result);
    lance_job_close(want.job);
    lance_job_close(got.job);
    return got.stages;
}

static struct lance_prefixes counts(void)
{
    struct lance_prefixes c;
    lance_model_prefixes(caching, &c);
    return c;
}

/* ---- what is found ---- */

static void a_new_seed_of_the_same_prompt_runs_no_prefix(void **state)
{
    (void)state;
    struct lance_request r = small_of_first(LANCE_T2I);
    assert_int_equal(stages_with_cache(&r), PREFIX);
    const struct lance_prefixes before = counts();
    assert_int_equal(before.hits, 0);
    assert_true(before.misses > 0 && before.bytes > 0 && before.blocks == before.misses);
    r.seed = 7;
    assert_int_equal(stages_with_cache(&r), 0);
    assert_int_equal(counts().misses, before.misses);
    assert_int_equal(counts().hits, before.misses);
}

static void a_new_question_about_the_same_picture_runs_no_vit(void **state)
{
    (void)state;
    for (int task = LANCE_X2T_IMAGE; task <= LANCE_X2T_VIDEO; task++) {
        struct lance_request r = small_of_first(task);
        first.frames = task == LANCE_X2T_VIDEO ? 6 : 1;
        r.prompt = "What is red?";
        assert_int_equal(stages_with_cache(&r), VIT | PREFIX);
        const struct lance_prefixes before = counts();
        r.prompt = "Which colour has the ground of the picture?";
        assert_int_equal(stages_with_cache(&r), PREFIX);
        assert_int_equal(counts().hits - before.hits, 2);     /* the system prompt and the picture */
        assert_int_equal(counts().misses - before.misses, 1); /* the question */
        assert_int_equal(stages_with_cache(&r), 0);           /* the same question again */
    }
    first.frames = 1;
}

static int prefix_steps_of(const char *prompt)
{
    struct lance_request r = small_of_first(LANCE_T2I);
    r.prompt = prompt;
    struct outcome o = run(plain, &r);
    lance_job_close(o.job);
    return o.prefix_steps;
}

/* Template, caption, and what follows it in both branches. A caption of one token is summed in another order. */
static void short_runs_of_text_are_one_pass_but_a_single_token(void **state)
{
    (void)state;
    assert_int_equal(prefix_steps_of("a red square"), 1);
    assert_int_equal(prefix_steps_of("red"), 3);
}

/* The pass that makes a caption's keys has other rows when those before it were found. */
static void what_is_found_of_one_pass_changes_no_bytes(void **state)
{
    (void)state;
    struct lance_request r = small_of_first(LANCE_T2I);
    assert_int_equal(stages_with_cache(&r), PREFIX);
    const struct lance_prefixes before = counts();
    r.prompt = "a large green triangle";
    assert_int_equal(stages_with_cache(&r), PREFIX);
    assert_int_equal(counts().hits - before.hits, 1); /* the template before the caption */
}

static void another_edit_of_the_same_picture_runs_neither_vit_nor_encoder(void **state)
{
    (void)state;
    for (int task = LANCE_IMAGE_EDIT; task <= LANCE_VIDEO_EDIT; task++) {
        struct lance_request r = small_of_first(task);
        first.frames = task == LANCE_VIDEO_EDIT ? 6 : 1;
        assert_int_equal(stages_with_cache(&r), VIT | ENCODE | PREFIX);
        r.prompt = "make it blue";
        assert_int_equal(stages_with_cache(&r), PREFIX);
        r.seed = 8;
        assert_int_equal(stages_with_cache(&r), 0);
        /* Another sample of the source's latents: the encoder has to run, and what follows the latents. */
        r.source_seed = 1;
        assert_int_equal(stages_with_cache(&r), ENCODE | PREFIX);
    }
    first.frames = 1;
}

static void i2v_encodes_its_first_frame_every_time(void **state)
{
    (void)state;
    struct lance_request r = small_of_first(LANCE_I2V);
    assert_int_equal(stages_with_cache(&r), ENCODE | PREFIX);
    assert_int_equal(stages_with_cache(&r), ENCODE);
}

/* ---- what is not ---- */

static void another_picture_finds_the_system_prompt_only(void **state)
{
    (void)state;
    struct lance_request r = small_of_first(LANCE_X2T_IMAGE);
    stages_with_cache(&r);
    const struct lance_prefixes before = counts();
    r.source = &other;
    assert_int_equal(stages_with_cache(&r), VIT | PREFIX);
    assert_int_equal(counts().hits - before.hits, 1);
    assert_int_equal(counts().misses - before.misses, 2);
}

static void another_size_of_the_same_picture_is_another_picture(void **state)
{
    (void)state;
    struct lance_request r = small_of_first(LANCE_X2T_IMAGE);
    stages_with_cache(&r);
    r.width = 128;
    assert_int_equal(stages_with_cache(&r), VIT | PREFIX);
}

static void guidance_only_adds_its_own_branch(void **state)
{
    (void)state;
    struct lance_request r = small_of_first(LANCE_T2I);
    r.guidance_scale = 1;
    stages_with_cache(&r);
    const struct lance_prefixes before = counts();
    r.guidance_scale = 4;
    assert_int_equal(stages_with_cache(&r), PREFIX);
    assert_int_equal(counts().hits - before.hits, before.misses); /* the conditional branch is all there */
    const struct lance_prefixes guided = counts();
    assert_int_equal(guided.misses - before.misses, 1); /* the unconditional branch's end of the template */
    r.guidance_scale = 3; /* does not reach the prefix */
    assert_int_equal(stages_with_cache(&r), 0);
    assert_int_equal(counts().misses, guided.misses);
    r.uncond_positions = LANCE_UNCOND_CONSISTENT;
    assert_int_equal(stages_with_cache(&r), PREFIX);
}

static void a_negative_prompt_is_found_again_and_shares_what_both_begin_with(void **state)
{
    (void)state;
    struct lance_request r = small_of_first(LANCE_IMAGE_EDIT);
    r.negative_prompt = "blurred";
    assert_int_equal(stages_with_cache(&r), VIT | ENCODE | PREFIX);
    const struct lance_prefixes before = counts();
    assert_int_equal(before.misses, 3 + 2 + 2); /* template, ViT and reference once; caption and tail of each */
    r.seed = 7;
    assert_int_equal(stages_with_cache(&r), 0);
    r.prompt = "a green square";
    assert_int_equal(stages_with_cache(&r), PREFIX);
    assert_int_equal(counts().misses - before.misses, 2);
    r.prompt = "blurred"; /* both branches the same chain */
    assert_int_equal(stages_with_cache(&r), 0);
}

/* ---- bounds ---- */

static void a_small_bound_drops_the_oldest_first(void **state)
{
    (void)state;
    struct lance_request r = small_of_first(LANCE_X2T_IMAGE);
    stages_with_cache(&r);
    const uint64_t one_question = counts().bytes;
    lance_model_close(caching);
    caching = open_model(one_question, 0);
    stages_with_cache(&r);
    assert_int_equal(counts().evictions, 0);
    r.source = &other;
    stages_with_cache(&r);
    assert_true(counts().evictions > 0);
    assert_true(counts().bytes <= counts().limit_bytes);
    assert_int_equal(stages_with_cache(&r), 0); /* the newer one is there, */
    r.source = &first;
    assert_int_equal(stages_with_cache(&r), VIT | PREFIX); /* the older one is not */
}

static void without_room_nothing_is_kept(void **state)
{
    (void)state;
    struct lance_prefixes c;
    struct lance_request r = small_of_first(LANCE_T2I);
    const uint64_t before = kernels->memory_in_use(kernels);
    for (int i = 0; i < 2; i++) {
        struct outcome o = run(plain, &r);
        assert_int_equal(o.stages, PREFIX);
        lance_job_close(o.job);
    }
    lance_model_prefixes(plain, &c);
    assert_int_equal(c.hits + c.blocks + c.bytes + c.evictions, 0);
    assert_int_equal(kernels->memory_in_use(kernels), before);
}

static void kept_prefixes_give_way_to_jobs(void **state)
{
    (void)state;
    struct lance_request r = small_of_first(LANCE_T2I), large = small_of_first(LANCE_T2I);
    struct lance_memory need;
    struct error error;
    large.width = large.height = 96;
    large.prompt = "something else";
    assert_int_equal(lance_estimate(caching, &large, &need, &error), 0);
    lance_model_close(caching);
    caching = open_model(ROOMY, need.total_bytes);
    stages_with_cache(&r);
    assert_true(counts().bytes > 0);
    struct lance_job *job;
    struct lance_progress progress;
    if (lance_job_start(&job, caching, &large, &error) || lance_job_step(job, &progress, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(progress.stage, STAGE_PREPARE); /* its input is known, and so is what it does not share */
    assert_true(counts().evictions > 0);
    lance_job_close(job);
}

static void jobs_side_by_side_share_what_they_have_in_common(void **state)
{
    (void)state;
    struct lance_request a = small_of_first(LANCE_X2T_IMAGE), b = small_of_first(LANCE_X2T_IMAGE);
    b.prompt = "Where is the square, and how large is it?";
    struct outcome want_a = run(plain, &a), want_b = run(plain, &b);
    struct lance_job *jobs[2];
    struct lance_result got;
    struct lance_progress progress;
    struct error error;
    assert_int_equal(lance_job_start(&jobs[0], caching, &a, &error), 0);
    assert_int_equal(lance_job_start(&jobs[1], caching, &b, &error), 0);
    for (int more[2] = {1, 1}; more[0] || more[1];)
        for (int i = 0; i < 2; i++)
            more[i] = more[i] && lance_job_step(jobs[i], &progress, &error) == LANCE_STEP_MORE;
    assert_int_equal(lance_job_result(jobs[0], &got, &error), 0);
    assert_same_bytes(&got, &want_a.result);
    assert_true(got.peak_bytes <= got.estimated_bytes);
    assert_int_equal(lance_job_result(jobs[1], &got, &error), 0);
    assert_same_bytes(&got, &want_b.result);
    assert_true(got.peak_bytes <= got.estimated_bytes);
    assert_int_equal(counts().hits, 2);
    assert_int_equal(counts().blocks, 4);
    struct lance_job *const all[] = {want_a.job, want_b.job, jobs[0], jobs[1]};
    for (int i = 0; i < 4; i++)
        lance_job_close(all[i]);
}

static void a_job_closed_at_any_step_spoils_nothing(void **state)
{
    (void)state;
    for (int task = LANCE_IMAGE_EDIT; task <= LANCE_X2T_IMAGE; task += LANCE_X2T_IMAGE - LANCE_IMAGE_EDIT)
        for (int stop = 0; stop < 12; stop++) {
            struct lance_request r = small_of_first(task);
            struct lance_job *job;
            struct lance_progress progress;
            struct error error;
            int more = 1;
            assert_int_equal(lance_job_start(&job, caching, &r, &error), 0);
            for (int i = 0; i < stop && more; i++)
                more = lance_job_step(job, &progress, &error) == LANCE_STEP_MORE;
            lance_job_close(job);
            if (stop % 4 == 3)
                stages_with_cache(&r);
        }
}

static void an_unloaded_model_leaves_no_memory_behind(void **state)
{
    (void)state;
    const uint64_t before = kernels->memory_in_use(kernels);
    struct lance_model *const shared = caching;
    caching = open_model(ROOMY, 0);
    struct lance_request r = small_of_first(LANCE_IMAGE_EDIT);
    stages_with_cache(&r);
    assert_true(counts().bytes > 0);
    lance_model_close(caching);
    caching = shared;
    assert_int_equal(kernels->memory_in_use(kernels), before);
}

#define WITH_CACHE(test) cmocka_unit_test_setup_teardown(test, open_caching, close_caching)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_CACHE(a_new_seed_of_the_same_prompt_runs_no_prefix),
        WITH_CACHE(a_new_question_about_the_same_picture_runs_no_vit),
        cmocka_unit_test(short_runs_of_text_are_one_pass_but_a_single_token),
        WITH_CACHE(what_is_found_of_one_pass_changes_no_bytes),
        WITH_CACHE(another_edit_of_the_same_picture_runs_neither_vit_nor_encoder),
        WITH_CACHE(i2v_encodes_its_first_frame_every_time),
        WITH_CACHE(another_picture_finds_the_system_prompt_only),
        WITH_CACHE(another_size_of_the_same_picture_is_another_picture),
        WITH_CACHE(guidance_only_adds_its_own_branch),
        WITH_CACHE(a_negative_prompt_is_found_again_and_shares_what_both_begin_with),
        WITH_CACHE(a_small_bound_drops_the_oldest_first),
        cmocka_unit_test(without_room_nothing_is_kept),
        WITH_CACHE(kept_prefixes_give_way_to_jobs),
        WITH_CACHE(jobs_side_by_side_share_what_they_have_in_common),
        WITH_CACHE(a_job_closed_at_any_step_spoils_nothing),
        WITH_CACHE(an_unloaded_model_leaves_no_memory_behind),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
