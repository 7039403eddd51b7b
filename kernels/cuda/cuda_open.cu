/* cuda_open.cu: opening the CUDA backend on a card, with its operators, and closing it. */
#include <stdio.h>
#include <string.h>

#include <new>

#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/operators.cuh"
#include "kernels/cuda/state.cuh"

static void cuda_close(struct kernels *k)
{
    if (!k)
        return;
    struct cuda_state *state = cuda_of(k);
    if (state->compute)
        cudaStreamSynchronize(state->compute);
    cuda_linear_end(k);
    cuda_attention_end(k);
    cuda_memory_end(k);
    cudaFree(state->arrived);
    cudaFree(state->growing.rows_on_card);
    for (auto &piece : state->staging) {
        if (piece.free)
            cudaEventDestroy(piece.free);
        if (piece.host)
            cudaFreeHost(piece.host);
    }
    for (cudaEvent_t event : state->pace)
        if (event)
            cudaEventDestroy(event);
    if (state->side)
        cudaStreamDestroy(state->side);
    if (state->compute)
        cudaStreamDestroy(state->compute);
    if (state->pool)
        cudaMemPoolDestroy(state->pool);
    delete state;
}

static int find_card(struct cuda_state *state, int device, struct error *error)
{
    int cards = 0;
    const cudaError_t status = cudaGetDeviceCount(&cards);
    cudaGetLastError();
    if (status == cudaErrorInsufficientDriver)
        return error_set(error, ERROR_UNSUPPORTED,
                         "no usable CUDA card: the driver is missing or older than this build needs (CUDA %d.%d)",
                         CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (status != cudaSuccess || !cards)
        return error_set(error, ERROR_UNSUPPORTED, "no CUDA card: %s",
                         status != cudaSuccess ? cudaGetErrorString(status) : "the driver lists none");
    if (device < 0 || device >= cards)
        return error_set(error, ERROR_UNSUPPORTED, "there is no CUDA card %d; they are numbered 0 to %d", device,
                         cards - 1);
    struct cudaDeviceProp card;
    if (!cuda_check(state, cudaGetDeviceProperties(&card, device), "asking for the card's properties"))
        return cuda_finish(state, error);
    if (card.major < 8)
        return error_set(error, ERROR_UNSUPPORTED,
                         "%s has compute capability %d.%d; 8.0 or later is needed (bfloat16 tensor cores)", card.name,
                         card.major, card.minor);
    snprintf(state->name, sizeof state->name, "cuda:%s", card.name);
    state->device = device;
    state->capability = card.major * 10 + card.minor;
    state->multiprocessors = card.multiProcessorCount;
    state->shared_bytes_max = card.sharedMemPerBlockOptin;
    state->memory_bytes = card.totalGlobalMem;
    return 0;
}

static int set_up(struct cuda_state *state, struct error *error)
{
    cuda_check(state, cudaSetDevice(state->device), "choosing the card");
    cuda_check(state, cudaStreamCreateWithFlags(&state->compute, cudaStreamNonBlocking), "opening a stream");
    cuda_check(state, cudaStreamCreateWithFlags(&state->side, cudaStreamNonBlocking), "opening a stream");
    for (auto &piece : state->staging) {
        cuda_check(state, cudaMallocHost(reinterpret_cast<void **>(&piece.host), CUDA_STAGING_BYTES),
                   "page-locked memory of the host");
        cuda_check(state, cudaEventCreateWithFlags(&piece.free, cudaEventDisableTiming), "opening an event");
    }
    for (cudaEvent_t &event : state->pace)
        cuda_check(state, cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "opening an event");
    struct cudaMemPoolProps wanted = {};
    wanted.allocType = cudaMemAllocationTypePinned;
    wanted.location.type = cudaMemLocationTypeDevice;
    wanted.location.id = state->device;
    cuda_check(state, cudaMemPoolCreate(&state->pool, &wanted), "opening a pool of the card's memory");
    uint64_t keep = UINT64_MAX; /* of what is free at a synchronisation; cuda_memory_free gives it back */
    if (!state->failure)
        cuda_check(state, cudaMemPoolSetAttribute(state->pool, cudaMemPoolAttrReleaseThreshold, &keep),
                   "opening a pool");
    const size_t bytes = (size_t)LINEAR_GROUP * (size_t)state->multiprocessors * sizeof *state->arrived;
    if (cuda_check(state, cudaMalloc((void **)&state->arrived, bytes), "opening counters"))
        cuda_check(state, cudaMemsetAsync(state->arrived, 0, bytes, state->compute), "opening counters");
    cuda_check(state, cudaMalloc((void **)&state->growing.rows_on_card, sizeof(int)), "opening a counter");
    return cuda_finish(state, error);
}

unsigned kernels_cuda_abi(void)
{
    return KERNELS_ABI;
}

int kernels_cuda_open(struct kernels **out, const struct cuda_options *options, struct error *error)
{
    *out = NULL;
    struct cuda_state *state = new (std::nothrow) cuda_state();
    if (!state)
        return error_set(error, ERROR_NO_MEMORY, "no memory for the CUDA backend");
    snprintf(state->name, sizeof state->name, "cuda");
    struct kernels *k = &state->kernels;
    int failed = find_card(state, options->device, error);
    if (!failed)
        failed = set_up(state, error);
    if (failed) {
        cuda_close(k);
        return failed;
    }
    k->name = state->name;
    k->act_bytes = sizeof(bf16);
    k->rows_alone = false; /* few rows and many take different kernels */
    k->host_memory = false;
    k->state = state;
    k->close = cuda_close;
    cuda_memory_fill(k);
    cuda_elementwise_fill(k);
    cuda_embed_fill(k);
    cuda_guided_step_fill(k);
    cuda_largest_fill(k);
    cuda_norm_fill(k);
    cuda_rope_fill(k);
    cuda_conv_fill(k);
    cuda_resample_fill(k);
    cuda_linear_fill(k);
    cuda_attention_fill(k);
    cuda_graph_fill(k);
    cuda_growing_fill(k);
    if (state->library || state->attention_library) { /* other sums: other bytes */
        const size_t length = strlen(state->name);
        snprintf(state->name + length, sizeof state->name - length, " with %s%s%s", state->library ? "cuBLASLt" : "",
                 state->library && state->attention_library ? " and " : "", state->attention_library ? "cuDNN" : "");
    }
    state->name_length = strlen(state->name);
    *out = k;
    return 0;
}
