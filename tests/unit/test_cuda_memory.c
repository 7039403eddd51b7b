/* A card whose memory ends in the middle of a job, as when other programs take it after the job
 * was admitted. Emulated only. */
#include "tests/unit/cuda_fixture.h"
#include "tests/unit/engine_fixture.h"

enum { CHANNELS = 48 };

static int open_model(void **state)
{
    (void)state;
    struct error error = {0};
    choose_emulated_plugin();
    if (make_checkpoint())
        return -1;
    if (!kernels_cuda_load(&kernels, 0, &error))
        return load_model(); /* keeps no prefixes */
    print_error("%s\n", error.text);
    return -1;
}

static struct lance_job *start_drawing(void)
{
    struct lance_request drawing;
    lance_request_init(&drawing, LANCE_T2I);
    drawing.prompt = "a red square";
    drawing.width = drawing.height = 48;
    drawing.num_inference_steps = 4;
    drawing.decode = false;
    return start(&drawing);
}

/* The latents of a whole drawing; free() them. */
static float *draw(size_t *bytes)
{
    struct lance_job *job = start_drawing();
    const struct lance_result result = finish(job);
    *bytes = (size_t)(result.latent_frames * result.latent_height * result.latent_width * CHANNELS) * sizeof(float);
    float *latents = checked_alloc(*bytes);
    memcpy(latents, result.latents, *bytes);
    lance_job_close(job);
    return latents;
}

/* The memory ends after so many steps: the next one that wants some fails, if any does. */
static int step_until_memory_ends(struct lance_job *job, int steps, struct error *error)
{
    struct lance_progress progress;
    int code = LANCE_STEP_MORE;
    for (int i = 0; i < steps && code == LANCE_STEP_MORE; i++)
        code = step(job, &progress);
    setenv("LANCED_EMULATION_MEMORY", "1", 1);
    while (code == LANCE_STEP_MORE)
        code = lance_job_step(job, &progress, error);
    unsetenv("LANCED_EMULATION_MEMORY");
    return code;
}

static void a_job_whose_memory_ends_fails_alone_and_leaves_nothing(void **state)
{
    (void)state;
    size_t bytes, again_bytes;
    float *undisturbed = draw(&bytes);
    const uint64_t before = kernels->memory_in_use(kernels);
    bool failed_later = false;
    for (int steps = 0; steps < 4; steps++) { /* before, between and after the splits of the prompt */
        struct lance_job *job = start_drawing();
        struct error error = {0};
        const int code = step_until_memory_ends(job, steps, &error);
        if (code < 0) {
            assert_int_equal(code, ERROR_NO_MEMORY);
            assert_non_null(strstr(error.text, "emulated card 0: no "));
            assert_non_null(strstr(error.text, "MB are free"));
            failed_later |= steps > 1;
        }
        lance_job_close(job);
        assert_int_equal(kernels->memory_in_use(kernels), before);
    }
    assert_true(failed_later);
    assert_false(kernels->lost);
    float *again = draw(&again_bytes);
    assert_int_equal(again_bytes, bytes);
    assert_memory_equal(again, undisturbed, bytes);
    free(undisturbed), free(again);
}

int main(void)
{
    if (getenv("LANCED_CUDA_PLUGIN"))
        return 0; /* no way to take a real one's memory away */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_whose_memory_ends_fails_alone_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, open_model, close_engine);
}
