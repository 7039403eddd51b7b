/* Tests of what each stage says it takes (need, daemon/engine/stages/) against what it takes: on the device as the
 * backend counts it, of the host as this program's own allocations count themselves. */
#include "daemon/engine/admission.h"

#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/engine_fixture.h"
#include "tests/unit/small_requests.h"

/* Requests of every task, plain and with what else a stage may hold: a batch, a mask, noise that is left, previews. */
enum { LARGE = LANCE_TASK_COUNT, CASES = 2 * LANCE_TASK_COUNT };

enum { MASK_CELLS = 15 * 20 };
static float mask_values[MASK_CELLS], wide_latents[3 * 48 * MASK_CELLS];

static struct lance_request request_of(int number)
{
    static struct lance_latents mask = {mask_values, 1, 1, 1, 15, 20}, latents = {wide_latents, 3, 48, 1, 15, 20};
    const enum lance_task task = (enum lance_task)(number % LANCE_TASK_COUNT);
    struct lance_request r = small(task);
    fill_source(source_pixels, sizeof source_pixels);
    if (number < LARGE)
        return r;
    r.width = 320;
    r.height = 240;
    r.batch_size = task_samples(task) || task == LANCE_DECODE ? 3 : 1;
    r.guidance_scale = 1;
    r.preview = task == LANCE_T2I; /* the backend tells only the highest peak so far: the first preview, of the first
                                    * task */
    r.max_new_tokens = 300;
    if (task == LANCE_DECODE || task == LANCE_T2I)
        r.latents = &latents;
    if (task == LANCE_T2I) {
        mask_values[0] = 1;
        r.latent_mask = &mask;
        r.end_step = 2;
        r.leftover_noise = true;
    }
    return r;
}

static bool is_near(uint64_t seen, uint64_t planned)
{
    return fabs((double)seen / (double)planned - 1) <= 0.05;
}

/* A preview where the request asks for them; the first one of a model takes most. */
static void look(struct lance_job *job, const struct lance_request *r)
{
    const uint8_t *rgb;
    int frames, height, width;
    struct error error;
    if (r->preview)
        lance_job_preview(job, &rgb, &frames, &height, &width, &error);
}

/* ---- the device ---- */

static void each_stage_takes_what_it_said_of_the_device(void **state)
{
    (void)state;
    for (int number = 0; number < CASES; number++) {
        const struct lance_request r = request_of(number);
        atomic_store(&model->colours_there, false);
        struct lance_job *job = start(&r);
        struct lance_progress progress;
        struct lance_result result;
        struct error error;
        uint64_t most = 0;
        while (step(job, &progress) == LANCE_STEP_MORE)
            look(job, &r);
        assert_int_equal(lance_job_result(job, &result, &error), 0);
        assert_true(result.stage_count > 1);
        for (int i = 0; i < result.stage_count; i++) {
            const struct lance_stage_time *s = &result.stages[i];
            if (s->estimated_bytes ? !is_near(s->peak_bytes, s->estimated_bytes) : s->peak_bytes != 0)
                fail_msg("%s%s, %s: %llu bytes, %llu planned", lance_task_name(r.task),
                         number < LARGE ? "" : " (large)", lance_stage_name(s->stage),
                         (unsigned long long)s->peak_bytes, (unsigned long long)s->estimated_bytes);
            most = s->estimated_bytes > most ? s->estimated_bytes : most;
        }
        assert_int_equal(result.estimated_bytes, most);
        lance_job_close(job);
    }
}

/* ---- the host ---- */

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__ || !defined __GLIBC__
#define COUNTS_ALLOCATIONS false
static uint64_t bytes_now, bytes_most;
#else
#define COUNTS_ALLOCATIONS true
/* Every allocation of this program: glibc's own functions, counted. */
static atomic_uint_fast64_t bytes_now, bytes_most;

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

static void *counted(void *memory)
{
    const uint64_t now = atomic_fetch_add(&bytes_now, malloc_usable_size(memory)) + malloc_usable_size(memory);
    uint64_t most = atomic_load(&bytes_most);
    while (now > most && !atomic_compare_exchange_weak(&bytes_most, &most, now))
        ;
    return memory;
}

void *malloc(size_t bytes) { return counted(__libc_malloc(bytes)); }
void *calloc(size_t count, size_t bytes) { return counted(__libc_calloc(count, bytes)); }
void *aligned_alloc(size_t alignment, size_t bytes) { return counted(__libc_memalign(alignment, bytes)); }
void *memalign(size_t alignment, size_t bytes) { return counted(__libc_memalign(alignment, bytes)); }

int posix_memalign(void **out, size_t alignment, size_t bytes)
{
    *out = counted(__libc_memalign(alignment, bytes));
    return *out ? 0 : 12;
}

void free(void *memory)
{
    atomic_fetch_sub(&bytes_now, malloc_usable_size(memory));
    __libc_free(memory);
}

void *realloc(void *memory, size_t bytes)
{
    atomic_fetch_sub(&bytes_now, malloc_usable_size(memory));
    return counted(__libc_realloc(memory, bytes));
}
#endif

static void plan(const struct lance_request *r, struct job_memory *memory)
{
    struct job job = {.model = model, .kernels = kernels, .request = *r};
    struct error error;
    if (job_plan_make(&job.plan, model, r, &error))
        fail_msg("%s", error.text);
    job_memory_plan(&job, memory);
    job_plan_free(&job.plan);
}

/* What the program takes on top of buffers that grow with a request: structs, token lists, the tokenizer's tables. */
enum { SMALL_CHANGE = 100000 };

/* On the CPU the device's memory is the host's: both together. */
static void each_stage_takes_what_it_said_of_all_memory(void **state)
{
    (void)state;
    if (!COUNTS_ALLOCATIONS)
        skip();
    for (int number = LARGE; number < CASES; number++) {
        struct lance_request r = request_of(number);
        uint64_t seen[STAGE_COUNT] = {0};
        struct job_memory memory;
        struct lance_progress progress;
        int status = LANCE_STEP_MORE;
        struct lance_job *job = start(&r);
        finish(job); /* scratch of the kernels stays with the threads */
        lance_job_close(job);
        atomic_store(&model->colours_there, false);
        plan(&r, &memory);
        const uint64_t before = bytes_now;
        job = start(&r);
        while (status == LANCE_STEP_MORE) {
            bytes_most = (uint64_t)bytes_now;
            status = step(job, &progress);
            look(job, &r);
            const uint64_t most = bytes_most - before;
            seen[progress.stage] = most > seen[progress.stage] ? most : seen[progress.stage];
        }
        for (int i = 0; i < STAGE_COUNT; i++) {
            const uint64_t planned = memory.stages[i].total_bytes;
            if (!is_near(seen[i], planned) && !(seen[i] >= planned && seen[i] - planned <= SMALL_CHANGE))
                fail_msg("%s, %s: %llu bytes, %llu planned", lance_task_name(r.task), lance_stage_name(i),
                         (unsigned long long)seen[i], (unsigned long long)planned);
        }
        lance_job_close(job);
    }
}

static int open_model(void **state)
{
    (void)state;
    return open_engine();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_stage_takes_what_it_said_of_the_device),
        cmocka_unit_test(each_stage_takes_what_it_said_of_all_memory),
    };
    return cmocka_run_group_tests(tests, open_model, close_engine);
}
