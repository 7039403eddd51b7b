/* Jobs on the CUDA backend, stage by stage: each takes of the card what it said, and one that was saved goes on to the
 * same bytes.
 *
 * On the emulated card (tests/cuda_emulation), or a real one with LANCED_CUDA_PLUGIN. */
#include "cuda_fixture.h"

#include "tests/unit/engine_fixture.h"
#include "tests/unit/small_requests.h"

static int open_model(void **state)
{
    (void)state;
    struct error error = {0};
    choose_emulated_plugin();
    fill_source(source_pixels, sizeof source_pixels);
    if (make_checkpoint())
        return -1;
    if (!kernels_cuda_load(&kernels, 0, &error))
        return load_model();
    print_error("%s\n", error.text);
    return -1;
}

static const enum lance_task tasks[] = {LANCE_T2I, LANCE_IMAGE_EDIT, LANCE_X2T_IMAGE};
enum { TASKS = sizeof tasks / sizeof *tasks };

static struct lance_request request_of(enum lance_task task)
{
    struct lance_request r = small(task);
    r.num_inference_steps = 2;
    r.max_new_tokens = 20; /* a step ends after 16 at the latest */
    r.temperature = 1.5;
    return r;
}

static void each_stage_takes_of_the_card_what_it_said(void **state)
{
    (void)state;
    for (int i = 0; i < TASKS; i++) {
        const struct lance_request r = request_of(tasks[i]);
        struct lance_job *job = start(&r);
        const struct lance_result result = finish(job);
        for (int s = 0; s < result.stage_count; s++) {
            const struct lance_stage_time *stage = &result.stages[s];
            if (fabs((double)stage->peak_bytes - (double)stage->estimated_bytes) >
                0.05 * (double)stage->estimated_bytes)
                fail_msg("%s, %s: %llu bytes, %llu planned", lance_task_name(tasks[i]), lance_stage_name(stage->stage),
                         (unsigned long long)stage->peak_bytes, (unsigned long long)stage->estimated_bytes);
        }
        lance_job_close(job);
    }
}

static void assert_same(const struct lance_result *got, const struct lance_result *want)
{
    const size_t pixels = (size_t)want->frames * (size_t)want->height * (size_t)want->width * 3;
    const size_t latents = 48 * (size_t)want->latent_frames * (size_t)want->latent_height * (size_t)want->latent_width;
    assert_int_equal(got->tokens, want->tokens);
    if (want->text) {
        assert_string_equal(got->text, want->text);
        assert_memory_equal(got->token_ids, want->token_ids, (size_t)want->tokens * sizeof *want->token_ids);
        return;
    }
    assert_memory_equal(got->latents, want->latents, latents * sizeof(float));
    assert_memory_equal(got->pixels, want->pixels, pixels);
}

/* After the first step of the stage that a state holds most of. */
static void a_saved_job_goes_on_to_the_same_bytes(void **state)
{
    (void)state;
    for (int i = 0; i < TASKS; i++) {
        const struct lance_request r = request_of(tasks[i]);
        struct lance_job *job = start(&r), *other = NULL;
        struct lance_progress progress;
        struct error error;
        void *saved;
        size_t bytes;
        do
            step(job, &progress);
        while (progress.stage != STAGE_DENOISE && progress.stage != STAGE_TEXT);
        assert_true(progress.step < progress.steps);
        if (lance_job_save(job, &saved, &bytes, &error) || lance_job_resume(&other, model, &r, saved, bytes, &error))
            fail_msg("%s", error.text);
        const struct lance_result want = finish(job), got = finish(other);
        assert_same(&got, &want);
        lance_job_close(job);
        lance_job_close(other);
        free(saved);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_stage_takes_of_the_card_what_it_said),
        cmocka_unit_test(a_saved_job_goes_on_to_the_same_bytes),
    };
    return cmocka_run_group_tests(tests, open_model, close_engine);
}
