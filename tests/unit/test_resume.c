/* Tests of lance_job_save and lance_job_resume: a job of every task, written down after every step and taken up by a
 * fresh process, ends with the same bytes; and states that are damaged, or of something else, are refused in words.
 *
 * `test_resume --resume FOLDER CASE COUNT` is the fresh process: it prints the digest of what comes of each state. */
#include "daemon/engine/lance.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/sha256.h"
#include "protocol/safetensors.h"
#include "tests/unit/engine_fixture.h"
#include "tests/unit/small_requests.h"

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { EVERY = 5 }; /* state of a job is taken up: all of them take minutes */
#else
enum { EVERY = 1 };
#endif

static float mask_values[12] = {0, 0.25f, 0.5f, 1, 1, 1, 0, 0, 1, 1, 0.75f, 1};
static struct lance_latents mask_given = {mask_values, 1, 1, 1, 3, 4};

enum { MASKED = LANCE_TASK_COUNT, BATCH, NOISY, DRAWN, CASES };
static const char *const names[CASES] = {[MASKED] = "masked", [BATCH] = "batch", [NOISY] = "noisy", [DRAWN] = "drawn"};

/* A request of every task, and some of what else a stage may hold. */
static struct lance_request request_of(int number)
{
    static const enum lance_task tasks[CASES] = {
        [MASKED] = LANCE_T2I, [BATCH] = LANCE_T2I, [NOISY] = LANCE_T2I, [DRAWN] = LANCE_X2T_IMAGE};
    struct lance_request r = small(number < LANCE_TASK_COUNT ? (enum lance_task)number : tasks[number]);
    fill_source(source_pixels, sizeof source_pixels);
    for (size_t i = 0; i < sizeof latent_values_given / sizeof *latent_values_given; i++)
        latent_values_given[i] = (float)(i % 7) / 7 - 0.4f;
    if (number == MASKED) {
        r.latents = &latents_given;
        r.latent_mask = &mask_given;
        r.denoise = 0.8;
    }
    if (number == BATCH) {
        r.batch_size = 3;
        r.preview = true;
        r.negative_prompt = "blue";
        r.width = 288; /* some steps to a frame */
        r.height = 240;
    }
    if (number == NOISY) {
        r.end_step = 2;
        r.leftover_noise = true;
    }
    if (number == DRAWN) {
        r.max_new_tokens = 40;
        r.temperature = 2;
    }
    return r;
}

static void add(struct sha256 *sha, const void *data, size_t bytes)
{
    sha256_add(sha, &bytes, sizeof bytes);
    sha256_add(sha, data ? data : "", data ? bytes : 0);
}

static void digest_of(const struct lance_result *r, char hex[65])
{
    const size_t latents =
        (size_t)r->batch * 48 * (size_t)r->latent_frames * (size_t)r->latent_height * (size_t)r->latent_width;
    struct sha256 sha;
    sha256_start(&sha);
    add(&sha, r->pixels, (size_t)r->batch * (size_t)r->frames * (size_t)r->height * (size_t)r->width * 3);
    add(&sha, r->latents, latents * sizeof(float));
    add(&sha, r->latent_state, latents * sizeof(float));
    add(&sha, r->text, r->text ? strlen(r->text) : 0);
    add(&sha, r->token_ids, (size_t)r->tokens * sizeof(int32_t));
    sha256_finish(&sha, hex);
}

static void finish_to(struct lance_job *job, char hex[65])
{
    const struct lance_result result = finish(job);
    digest_of(&result, hex);
    lance_job_close(job);
}

struct bytes {
    void *data;
    size_t size;
};

static struct bytes saved(const struct lance_job *job)
{
    struct bytes state;
    struct error error;
    if (lance_job_save(job, &state.data, &state.size, &error))
        fail_msg("%s", error.text);
    return state;
}

static struct lance_job *resume(const struct lance_request *request, struct bytes state)
{
    struct lance_job *job;
    struct error error;
    if (lance_job_resume(&job, model, request, state.data, state.size, &error))
        fail_msg("%s", error.text);
    return job;
}

/* ---- the fresh process ---- */

static struct bytes read_all(const char *path)
{
    struct bytes file = {malloc(64 << 20), 0};
    FILE *in = fopen(path, "rb");
    if (file.data && in)
        file.size = fread(file.data, 1, 64 << 20, in);
    if (in)
        fclose(in);
    return file;
}

/* Take up one state and say what comes out; 1: something is wrong. */
static int resume_one(const struct lance_request *r, const char *path)
{
    struct error error = {0};
    char hex[65];
    struct bytes state = read_all(path);
    struct lance_job *job;
    struct lance_progress progress;
    struct lance_result result;
    int code = lance_job_resume(&job, model, r, state.data, state.size, &error);
    free(state.data);
    while (!code && (code = lance_job_step(job, &progress, &error)) == LANCE_STEP_MORE)
        code = 0;
    if (code || lance_job_result(job, &result, &error)) {
        printf("%s\n", error.text);
        return 1;
    }
    digest_of(&result, hex);
    printf("%s\n", hex);
    lance_job_close(job);
    return 0;
}

static int resume_here(char **arguments)
{
    struct error error = {0};
    char path[200];
    const struct lance_request r = request_of(atoi(arguments[1]));
    int code = kernels_cpu_open(&kernels, 1, CPU_AUTO, &error);
    if (!code)
        code = lance_model_open(&model, kernels, &(struct lance_model_options){.model_dir = arguments[0]}, &error);
    if (code)
        printf("%s\n", error.text);
    for (int i = 0; !code && i < atoi(arguments[2]); i++) {
        snprintf(path, sizeof path, "%.100s/state.%d", arguments[0], i);
        code = resume_one(&r, path);
        remove(path);
    }
    lance_model_close(model);
    kernels->close(kernels);
    return code;
}

static void write_state(struct bytes state, int number)
{
    char path[100];
    snprintf(path, sizeof path, "%s/state.%d", folder, number);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(state.data, 1, state.size, out), state.size);
    assert_int_equal(fclose(out), 0);
}

/* A fresh process takes up the states that were written, and gives `want` for each. */
static void assert_same_elsewhere(int number, int states, const char *want)
{
    char command[500], self[200], got[700];
    const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(length > 0);
    self[length] = 0;
    snprintf(command, sizeof command, "%s --resume %s %d %d", self, folder, number, states);
    FILE *process = popen(command, "r");
    assert_non_null(process);
    for (int i = 0; i < states; i++) {
        if (!fgets(got, sizeof got, process))
            fail_msg("the other process ended");
        got[strcspn(got, "\n")] = 0;
        if (strcmp(got, want) != 0)
            fail_msg("%s, state %d of %d: %s where %s is wanted",
                     number < LANCE_TASK_COUNT ? lance_task_name(number) : names[number], i, states, got, want);
    }
    assert_int_equal(pclose(process), 0);
}

static void a_job_saved_at_any_step_gives_the_same_bytes_in_a_fresh_process(void **state)
{
    (void)state;
    for (int number = 0; number < CASES; number++) {
        const struct lance_request r = request_of(number);
        struct lance_job *job = start(&r);
        struct lance_progress progress;
        struct lance_result result;
        struct error error;
        char want[65];
        int states = 0;
        for (int done = 0, status = LANCE_STEP_MORE; status == LANCE_STEP_MORE; done++) {
            struct bytes now = saved(job);
            if (done % (number == BATCH ? 6 : EVERY) == 0) /* frames of a batch have many steps */
                write_state(now, states++);
            free(now.data);
            status = step(job, &progress);
        }
        assert_int_equal(lance_job_result(job, &result, &error), 0);
        digest_of(&result, want);
        lance_job_close(job);
        assert_same_elsewhere(number, states, want);
        char unsaved[65];
        finish_to(start(&r), unsaved); /* saving changes nothing */
        assert_string_equal(unsaved, want);
    }
}

/* ---- in this process ---- */

static void a_resumed_job_goes_on_where_it_was(void **state)
{
    (void)state;
    struct lance_request r = request_of(LANCE_T2V);
    r.num_inference_steps = 6;
    struct lance_job *job = start(&r);
    struct lance_progress progress;
    do
        step(job, &progress);
    while (progress.stage != STAGE_DENOISE || progress.step < 4);
    struct bytes now = saved(job);
    lance_job_close(job);
    job = resume(&r, now);
    do
        step(job, &progress);
    while (progress.stage != STAGE_DENOISE);
    assert_int_equal(progress.step, 5);
    struct lance_result result = finish(job);
    for (int i = 0; i < result.stage_count; i++)
        if (result.stages[i].stage == STAGE_DENOISE)
            assert_int_equal(result.stages[i].steps, 6);
    lance_job_close(job);
    free(now.data);
}

/* What was told is not told again: the pieces before and after make up the text. */
static void the_pieces_of_a_resumed_answer_go_on(void **state)
{
    (void)state;
    const struct lance_request r = request_of(DRAWN);
    struct lance_job *job = start(&r);
    struct lance_progress progress;
    char said[4000] = "";
    do {
        step(job, &progress);
        if (progress.text)
            strcat(said, progress.text);
    } while (progress.stage != STAGE_TEXT);
    assert_true(progress.step < progress.steps);
    struct bytes now = saved(job);
    lance_job_close(job);
    job = resume(&r, now);
    while (step(job, &progress) == LANCE_STEP_MORE)
        if (progress.text)
            strcat(said, progress.text);
    if (progress.text)
        strcat(said, progress.text);
    struct lance_result result;
    struct error error;
    assert_int_equal(lance_job_result(job, &result, &error), 0);
    assert_non_null(strstr(said, result.text));
    lance_job_close(job);
    free(now.data);
}

static void a_resumed_job_can_be_saved_before_it_is_where_it_was(void **state)
{
    (void)state;
    const int cases[] = {LANCE_IMAGE_EDIT, DRAWN, BATCH};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct lance_request r = request_of(cases[i]);
        struct lance_job *job = start(&r);
        struct lance_progress progress;
        char want[65], got[65];
        do
            step(job, &progress);
        while (progress.stage != STAGE_TEXT && !(progress.stage == STAGE_DENOISE && progress.step == 2));
        struct bytes first = saved(job), second;
        lance_job_close(job);
        finish_to(start(&r), want);
        for (int steps = 0; steps < 3; steps++) {
            job = resume(&r, first);
            for (int s = 0; s < steps; s++)
                step(job, &progress);
            second = saved(job);
            lance_job_close(job);
            finish_to(resume(&r, second), got);
            assert_string_equal(got, want);
            free(second.data);
        }
        free(first.data);
    }
}

/* Step until so many steps of denoising are done, and take the preview. */
static void preview_at(struct lance_job *job, int steps, uint8_t *seen, size_t bytes)
{
    struct lance_progress progress;
    struct error error;
    const uint8_t *rgb;
    int frames, height, width;
    do
        step(job, &progress);
    while (progress.stage != STAGE_DENOISE || progress.step < steps);
    if (lance_job_preview(job, &rgb, &frames, &height, &width, &error))
        fail_msg("%s", error.text);
    assert_int_equal((size_t)(frames * height * width * 3), bytes);
    memcpy(seen, rgb, bytes);
}

static void previews_of_a_resumed_job_are_those_of_one_that_was_not_broken_off(void **state)
{
    (void)state;
    struct lance_request r = request_of(BATCH);
    uint8_t before[15 * 18 * 3], after[15 * 18 * 3];
    r.num_inference_steps = 4;
    struct lance_job *job = start(&r);
    preview_at(job, 2, before, sizeof before);
    struct bytes now = saved(job);
    preview_at(job, 3, before, sizeof before);
    lance_job_close(job);
    job = resume(&r, now);
    preview_at(job, 3, after, sizeof after);
    assert_memory_equal(after, before, sizeof before);
    lance_job_close(job);
    free(now.data);
}

static void a_resumed_job_closed_at_any_step_leaves_no_memory_behind(void **state)
{
    (void)state;
    const uint64_t before = kernels->memory_in_use(kernels);
    const int cases[] = {LANCE_IMAGE_EDIT, LANCE_X2T_IMAGE, LANCE_T2I};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct lance_request r = request_of(cases[i]);
        struct lance_progress progress;
        struct lance_job *job = start(&r);
        int more = 1;
        for (int s = 0; s < 100 && more; s++) {
            struct bytes now = saved(job);
            for (int stop = 0; stop < 5; stop++) {
                struct lance_job *other = resume(&r, now);
                for (int done = 0, going = 1; done < stop && going; done++)
                    going = step(other, &progress) == LANCE_STEP_MORE;
                lance_job_close(other);
            }
            free(now.data);
            more = step(job, &progress) == LANCE_STEP_MORE;
        }
        lance_job_close(job);
        assert_int_equal(kernels->memory_in_use(kernels), before);
    }
}

static void a_job_that_is_done_or_has_failed_is_not_saved(void **state)
{
    (void)state;
    const struct lance_request r = request_of(LANCE_T2I);
    struct lance_job *job = start(&r);
    struct bytes nothing;
    struct lance_progress progress;
    struct error error;
    finish(job);
    assert_int_equal(lance_job_save(job, &nothing.data, &nothing.size, &error), ERROR_BAD_REQUEST);
    assert_null(nothing.data);
    lance_job_close(job);
    job = start(&r);
    lance_job_abort(job);
    assert_int_equal(lance_job_step(job, &progress, &error), ERROR_CANCELLED);
    assert_int_equal(lance_job_save(job, &nothing.data, &nothing.size, &error), ERROR_INTERNAL);
    lance_job_close(job);
}

/* ---- states that are not taken ---- */

/* A state whose metadata or tensors are changed before it is written again. */
struct change {
    const char *key, *value;       /* metadata; value NULL: without it */
    const char *tensor;            /* left out, unless: */
    enum { GONE, SHORTER, OTHER_TYPE, NOT_A_NUMBER, OUT_OF_RANGE } how;
};

static struct bytes changed(struct bytes state, struct change change)
{
    static const char *const keys[] = {"lanced", "build", "backend", "model",      "request", "inputs",
                                       "stage",  "step",  "tokens",  "text_bytes", "items"};
    const char *kept_keys[16], *values[16];
    struct tensor_view tensors[16];
    size_t count = 0, texts = 0;
    struct safetensors *file;
    struct error error;
    assert_int_equal(safetensors_parse(&file, state.data, state.size, "state", &error), 0);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const bool here = change.key && !strcmp(change.key, keys[i]);
        kept_keys[texts] = keys[i];
        values[texts] = here ? change.value : safetensors_metadata(file, keys[i]);
        texts += values[texts] != NULL;
    }
    bool found = !change.tensor;
    void *altered = NULL;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        struct tensor_view t = *safetensors_at(file, i);
        if (change.tensor && !strcmp(t.name, change.tensor)) {
            found = true;
            if (change.how == GONE)
                continue;
            altered = malloc(t.bytes);
            memcpy(altered, t.data, t.bytes);
            t.data = altered;
            const size_t element = dtype_bytes(t.dtype);
            if (change.how == SHORTER)
                t.shape[0]--, t.bytes -= element;
            if (change.how == OTHER_TYPE)
                t.dtype = t.dtype == DTYPE_F32 ? DTYPE_I32 : DTYPE_F32;
            if (change.how == NOT_A_NUMBER || change.how == OUT_OF_RANGE)
                memset(altered, change.how == NOT_A_NUMBER ? 0xff : 0x7f, element);
        }
        tensors[count++] = t;
    }
    assert_true(found);
    struct bytes out;
    uint64_t bytes;
    assert_int_equal(safetensors_write(&out.data, &bytes, tensors, count, kept_keys, values, texts, &error), 0);
    out.size = (size_t)bytes;
    free(altered);
    safetensors_close(file);
    return out;
}

static void assert_not_taken(const struct lance_request *request, struct bytes state, int code, const char *words)
{
    struct lance_job *job;
    struct error error = {0};
    const uint64_t before = kernels->memory_in_use(kernels);
    const int got = lance_job_resume(&job, model, request, state.data, state.size, &error);
    if (got != code || !strstr(error.text, words))
        fail_msg("%d \"%s\" is not %d \"%s\"", got, error.text, code, words);
    assert_null(job);
    assert_int_equal(kernels->memory_in_use(kernels), before);
}

/* A job of the case, saved after `steps` steps of a stage. */
static struct bytes saved_in(int number, enum lance_stage stage, int steps)
{
    const struct lance_request r = request_of(number);
    struct lance_job *job = start(&r);
    struct lance_progress progress;
    do
        step(job, &progress);
    while (progress.stage != stage || progress.step < steps);
    struct bytes state = saved(job);
    lance_job_close(job);
    return state;
}

static const struct {
    int number;
    enum lance_stage stage;
    int steps;
    struct change change;
    int code;
    const char *words;
} refused[] = {
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "build", .value = "0-12"}, ERROR_UNSUPPORTED,
     "the state is of another build: 0-12, where "},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "backend", .value = "cuda:x"}, ERROR_UNSUPPORTED,
     "the state is of another backend: cuda:x, where "},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "model", .value = "ab"}, ERROR_UNSUPPORTED,
     "the state is of another model: ab, where "},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "request", .value = "ab"}, ERROR_BAD_REQUEST,
     "the state is of another request: ab, where "},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "lanced", .value = "lanced job state 2"}, ERROR_BAD_FILE,
     "not a job's state"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "lanced"}, ERROR_BAD_FILE, "not a job's state"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "build"}, ERROR_BAD_FILE, "\"build\" is missing"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "inputs"}, ERROR_BAD_FILE, "\"inputs\" is missing"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "stage", .value = "text"}, ERROR_BAD_FILE,
     "stage is \"text\", which this job has not"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "stage", .value = "dance"}, ERROR_BAD_FILE,
     "stage is \"dance\", which this job has not"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "stage"}, ERROR_BAD_FILE, "stage is \"\""},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "stage", .value = "prefix"}, ERROR_BAD_FILE,
     "x is missing or not of this job's size"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "step", .value = "3"}, ERROR_BAD_FILE,
     "step is \"3\"; a number from 0 to 2 is needed"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "step", .value = "-1"}, ERROR_BAD_FILE, "step is \"-1\""},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "step", .value = "1e3"}, ERROR_BAD_FILE, "step is \"1e3\""},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "step", .value = "99999999999999999999999"}, ERROR_BAD_FILE,
     "step is \"9999"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "step", .value = "0"}, ERROR_BAD_FILE,
     "x is missing or not of this job's size"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "items", .value = "1"}, ERROR_BAD_FILE, "does not go with"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.key = "tokens", .value = "1"}, ERROR_BAD_FILE,
     "tokens is \"1\"; a number from 0 to 0 is needed"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.tensor = "x", .how = GONE}, ERROR_BAD_FILE, "x is missing"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.tensor = "x", .how = SHORTER}, ERROR_BAD_FILE,
     "x is missing or not of this job's size"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.tensor = "x", .how = OTHER_TYPE}, ERROR_BAD_FILE,
     "x is missing or not of this job's size"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.tensor = "x", .how = NOT_A_NUMBER}, ERROR_BAD_FILE, "value 0 of x is no number"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.tensor = "seconds", .how = GONE}, ERROR_BAD_FILE, "seconds or steps_done"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.tensor = "seconds", .how = NOT_A_NUMBER}, ERROR_BAD_FILE, "seconds or steps_done"},
    {LANCE_T2I, STAGE_DENOISE, 1, {.tensor = "steps_done", .how = NOT_A_NUMBER}, ERROR_BAD_FILE,
     "seconds or steps_done"},
    {LANCE_IMAGE_EDIT, STAGE_DENOISE, 1, {.tensor = "encoded", .how = SHORTER}, ERROR_BAD_FILE,
     "encoded is missing or not"},
    {LANCE_VIDEO_EDIT, STAGE_DENOISE, 1, {.key = "stage", .value = "encode"}, ERROR_BAD_FILE, "x is missing or not"},
    {BATCH, STAGE_DENOISE, 3, {.tensor = "x", .how = GONE}, ERROR_BAD_FILE, "x is missing"},
    {BATCH, STAGE_DECODE, 30, {.tensor = "pixels", .how = GONE}, ERROR_BAD_FILE, "pixels is missing"},
    {BATCH, STAGE_DECODE, 30, {.tensor = "pixels", .how = SHORTER}, ERROR_BAD_FILE, "pixels is missing or not"},
    {BATCH, STAGE_DECODE, 30, {.key = "items", .value = "2"}, ERROR_BAD_FILE, "does not go with"},
    {BATCH, STAGE_DECODE, 30, {.key = "items", .value = "4"}, ERROR_BAD_FILE,
     "items is \"4\"; a number from 0 to 3 is needed"},
    {DRAWN, STAGE_TEXT, 1, {.tensor = "tokens", .how = GONE}, ERROR_BAD_FILE, "tokens is missing"},
    {DRAWN, STAGE_TEXT, 1, {.tensor = "tokens", .how = SHORTER}, ERROR_BAD_FILE, "tokens is missing or not"},
    {DRAWN, STAGE_TEXT, 1, {.tensor = "tokens", .how = NOT_A_NUMBER}, ERROR_BAD_FILE, "token 0 is -1; ids from 0 to "},
    {DRAWN, STAGE_TEXT, 1, {.tensor = "tokens", .how = OUT_OF_RANGE}, ERROR_BAD_FILE,
     "token 0 is 2139062143; ids from 0 to "},
    {DRAWN, STAGE_TEXT, 1, {.tensor = "keys_values", .how = SHORTER}, ERROR_BAD_FILE, "keys_values is missing or not"},
    {DRAWN, STAGE_TEXT, 1, {.tensor = "keys_values", .how = GONE}, ERROR_BAD_FILE, "tokens is missing"},
    {DRAWN, STAGE_TEXT, 1, {.key = "tokens", .value = "41"}, ERROR_BAD_FILE,
     "tokens is \"41\"; a number from 0 to 40 is needed"},
    {DRAWN, STAGE_TEXT, 1, {.key = "tokens", .value = "0"}, ERROR_BAD_FILE, "does not go with"},
};

static void damaged_and_foreign_states_are_refused_in_words(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const struct lance_request r = request_of(refused[i].number);
        struct bytes whole = saved_in(refused[i].number, refused[i].stage, refused[i].steps),
                     other = changed(whole, refused[i].change);
        assert_not_taken(&r, other, refused[i].code, refused[i].words);
        free(whole.data);
        free(other.data);
    }
}

static void a_state_cut_off_anywhere_is_refused(void **state)
{
    (void)state;
    struct bytes whole = saved_in(DRAWN, STAGE_TEXT, 1);
    const struct lance_request r = request_of(DRAWN);
    for (size_t size = 0; size < whole.size; size += size < 600 ? 1 : 997) {
        struct bytes part = {malloc(size ? size : 1), size};
        memcpy(part.data, whole.data, size);
        assert_not_taken(&r, part, ERROR_BAD_FILE, "state");
        free(part.data);
    }
    free(whole.data);
}

static void another_request_is_refused_at_once_and_other_payloads_while_preparing(void **state)
{
    (void)state;
    struct bytes whole = saved_in(LANCE_IMAGE_EDIT, STAGE_DENOISE, 1);
    struct lance_request r = request_of(LANCE_IMAGE_EDIT);
    r.seed++;
    assert_not_taken(&r, whole, ERROR_BAD_REQUEST, "the state is of another request");
    r = request_of(LANCE_IMAGE_EDIT);
    r.prompt = "a blue square";
    assert_not_taken(&r, whole, ERROR_BAD_REQUEST, "the state is of another request");
    r = request_of(LANCE_IMAGE_EDIT);
    source_pixels[40 * 80 * 3] ^= 0x80;
    struct lance_job *job = resume(&r, whole);
    struct lance_progress progress;
    struct error error;
    int code;
    while ((code = lance_job_step(job, &progress, &error)) == LANCE_STEP_MORE)
        assert_int_equal(progress.stage, STAGE_PREPARE);
    assert_int_equal(code, ERROR_BAD_REQUEST);
    assert_non_null(strstr(error.text, "the state is of a job with another source"));
    lance_job_close(job);
    free(whole.data);
}

static void a_model_that_holds_its_tables_otherwise_is_another(void **state)
{
    (void)state;
    struct lance_model *const shared = model;
    struct bytes whole = saved_in(LANCE_T2I, STAGE_DENOISE, 1);
    const struct lance_request r = request_of(LANCE_T2I);
    struct error error;
    for (enum lance_position_tables tables = LANCE_TABLES_BF16; tables <= LANCE_TABLES_F32; tables++) {
        const struct lance_model_options options = {.model_dir = folder, .position_tables = tables};
        char usual[65], other[65];
        assert_int_equal(lance_model_open(&model, kernels, &options, &error), 0);
        finish_to(start(&r), other);
        struct lance_model *const opened = model;
        model = shared;
        finish_to(start(&r), usual);
        model = opened;
        if (strcmp(usual, other) != 0)
            assert_not_taken(&r, whole, ERROR_UNSUPPORTED, "the state is of another model");
        else
            finish_to(resume(&r, whole), other);
        assert_true(tables != LANCE_TABLES_F32 || strcmp(usual, other) != 0); /* one of them is the usual one */
        lance_model_close(model);
        model = shared;
    }
    free(whole.data);
}

/* More text told than the tokens say: nothing after it could be told. */
static void text_that_the_tokens_do_not_say_is_refused_where_the_text_goes_on(void **state)
{
    (void)state;
    struct bytes whole = saved_in(DRAWN, STAGE_TEXT, 1),
                 other = changed(whole, (struct change){.key = "text_bytes", .value = "100000"});
    const struct lance_request r = request_of(DRAWN);
    struct lance_job *job = resume(&r, other);
    struct lance_progress progress;
    struct error error;
    int code;
    while ((code = lance_job_step(job, &progress, &error)) == LANCE_STEP_MORE)
        assert_int_not_equal(progress.stage, STAGE_TEXT);
    assert_int_equal(code, ERROR_BAD_FILE);
    assert_non_null(strstr(error.text, "text_bytes is 100000, but its tokens say"));
    lance_job_close(job);
    free(whole.data);
    free(other.data);
}

static int open_model(void **state)
{
    (void)state;
    return open_engine();
}

int main(int argc, char **argv)
{
    if (argc == 5 && !strcmp(argv[1], "--resume"))
        return resume_here(argv + 2);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_saved_at_any_step_gives_the_same_bytes_in_a_fresh_process),
        cmocka_unit_test(a_resumed_job_goes_on_where_it_was),
        cmocka_unit_test(the_pieces_of_a_resumed_answer_go_on),
        cmocka_unit_test(a_resumed_job_can_be_saved_before_it_is_where_it_was),
        cmocka_unit_test(previews_of_a_resumed_job_are_those_of_one_that_was_not_broken_off),
        cmocka_unit_test(a_resumed_job_closed_at_any_step_leaves_no_memory_behind),
        cmocka_unit_test(a_job_that_is_done_or_has_failed_is_not_saved),
        cmocka_unit_test(damaged_and_foreign_states_are_refused_in_words),
        cmocka_unit_test(a_state_cut_off_anywhere_is_refused),
        cmocka_unit_test(another_request_is_refused_at_once_and_other_payloads_while_preparing),
        cmocka_unit_test(a_model_that_holds_its_tables_otherwise_is_another),
        cmocka_unit_test(text_that_the_tokens_do_not_say_is_refused_where_the_text_goes_on),
    };
    return cmocka_run_group_tests(tests, open_model, close_engine);
}
