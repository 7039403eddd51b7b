/* admission.c: see admission.h. */
#include "daemon/engine/admission.h"
#include "daemon/engine/request.h"
#include "kernels/kernels.h"

const struct stage_kind *stage_kind_of(enum lance_stage stage)
{
    static const struct stage_kind *const kinds[STAGE_COUNT] = {
        [STAGE_PREPARE] = &prepare_stage, [STAGE_VIT] = &vit_stage,         [STAGE_ENCODE] = &encode_stage,
        [STAGE_PREFIX] = &prefix_stage,   [STAGE_DENOISE] = &denoise_stage, [STAGE_DECODE] = &decode_stage,
        [STAGE_TEXT] = &text_stage,
    };
    return kinds[stage];
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

static void keep_larger(struct lance_memory *memory, const struct lance_memory *other)
{
    memory->device_bytes = larger(memory->device_bytes, other->device_bytes);
    memory->host_bytes = larger(memory->host_bytes, other->host_bytes);
    memory->total_bytes = larger(memory->total_bytes, other->total_bytes);
}

static struct lance_memory memory_of(uint64_t device, uint64_t host)
{
    return (struct lance_memory){.device_bytes = device, .host_bytes = host, .total_bytes = device + host};
}

/* The result while it is encoded for the client: there twice. */
static uint64_t encoded_result_bytes(const struct job *job)
{
    const struct handover_sizes sizes = handover_sizes_of(job);
    return sizes.pixels + (job->request.task == LANCE_DECODE ? 0 : sizes.raw_latents + sizes.latent_state);
}

void job_memory_plan(const struct job *job, struct job_memory *memory)
{
    struct stage_bytes held = {0}; /* between stages */
    *memory = (struct job_memory){0};
    for (int i = 0; i < STAGE_COUNT; i++) {
        const struct stage_kind *kind = stage_kind_of(i);
        struct stage_need need = {0};
        if (kind->steps(job) == 0)
            continue;
        kind->need(job, &need);
        held.device += need.leaves.device;
        held.host += need.leaves.host;
        memory->stages[i] = memory_of(held.device + need.own.device, held.host + need.own.host);
        keep_larger(&memory->peak, &memory->stages[i]);
        held.device -= need.frees.device;
        held.host -= need.frees.host;
    }
    const struct lance_memory result = memory_of(held.device, held.host + encoded_result_bytes(job));
    keep_larger(&memory->peak, &result);
}

uint64_t job_memory_need(const struct lance_memory *memory, const struct lance_model *model)
{
    return model->kernels->host_memory ? memory->total_bytes : memory->device_bytes;
}

int job_memory_check_fit(const struct lance_memory *memory, const struct lance_model *model, struct error *error)
{
    const uint64_t limit = model->memory_limit_bytes, need = job_memory_need(memory, model);
    const uint64_t host_limit = model->host_limit_bytes, host_need = memory->host_bytes;
    if (!model->kernels->host_memory && host_limit && host_need > host_limit)
        return error_set(error, ERROR_TOO_LARGE,
                         "the job needs %.1f MB of the host's memory beside the GPU's; the limit is %.1f MB. "
                         "Ask for a smaller size, fewer frames or a smaller batch",
                         (double)host_need / 1e6, (double)host_limit / 1e6);
    if (!limit || need <= limit)
        return 0;
    return error_set(error, ERROR_TOO_LARGE,
                     "the job needs %.1f MB of memory beside the weights; the limit is %.1f MB. Ask for a "
                     "smaller size, fewer frames or a smaller batch",
                     (double)need / 1e6, (double)limit / 1e6);
}

/* The memory of a request's job, which is not started. */
static int plan_request(const struct lance_model *model, const struct lance_request *request,
                        struct lance_memory *memory, struct error *error)
{
    struct job job = {.model = (struct lance_model *)(uintptr_t)model, .kernels = model->kernels, .request = *request};
    struct job_memory all;
    int code = request_check(model, request, error);
    if (!code)
        code = job_plan_make(&job.plan, model, request, error);
    if (code)
        return code;
    job_memory_plan(&job, &all);
    job_plan_free(&job.plan);
    *memory = all.peak;
    return 0;
}

int lance_request_check(const struct lance_model *model, const struct lance_request *request, struct error *error)
{
    struct lance_memory memory;
    int code = plan_request(model, request, &memory, error);
    return code ? code : job_memory_check_fit(&memory, model, error);
}

int lance_estimate(const struct lance_model *model, const struct lance_request *request, struct lance_memory *memory,
                   struct error *error)
{
    return plan_request(model, request, memory, error);
}
