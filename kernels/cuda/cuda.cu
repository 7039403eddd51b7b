/* cuda.cu: the CUDA backend's memory, its transfers, and what went wrong; see state.cuh.
 *
 * Float32 from the host goes through two page-locked pieces in turn: while the card fetches one, the next is filled. On
 * the card it waits in scratch memory to become bf16. Downloads go the same way back. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/graph.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.cuh"

enum { THREADS = 256 };

/* ---- failures ---- */
void cuda_fail(struct cuda_state *state, int code, const char *format, ...)
{
    if (state->failure)
        return;
    state->failure = code;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(state->failure_text, sizeof state->failure_text, format, arguments);
    va_end(arguments);
}

void cuda_name_refused(struct cuda_state *state, enum cuda_refused kind, int shapes)
{
    static const char *const names[REFUSED_KINDS] = {"attention", "products"};
    if (state->refused[kind] == shapes)
        return;
    state->refused[kind] = shapes;
    state->name[state->name_length] = '\0';
    const char *before = " (which refused";
    for (int i = 0; i < REFUSED_KINDS; i++) {
        const size_t length = strlen(state->name);
        if (!state->refused[i])
            continue;
        snprintf(state->name + length, sizeof state->name - length, "%s %d shape%s of %s", before, state->refused[i],
                 state->refused[i] == 1 ? "" : "s", names[i]);
        before = " and";
    }
    const size_t length = strlen(state->name);
    snprintf(state->name + length, sizeof state->name - length, ")");
}

/* Whether an error leaves a process with no use of the card: CUDA documents that it has to be started again, and that
 * every further call returns the same. */
static bool is_fatal(cudaError_t status)
{
    switch (status) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorExternalDevice:
    case cudaErrorUnknown:
        return true;
    default:
        return false;
    }
}

static const char *last_kernel(const struct cuda_state *state)
{
    return state->last_kernel ? state->last_kernel : "none";
}

bool cuda_check(struct cuda_state *state, cudaError_t status, const char *what)
{
    if (status == cudaSuccess)
        return true;
    cudaGetLastError(); /* or the next call that asks would report this one again */
    if (is_fatal(status)) {
        state->kernels.lost = true;
        cuda_fail(state, ERROR_INTERNAL, "the card has failed (%s; noticed while %s, last kernel started: %s)",
                  cudaGetErrorString(status), what, last_kernel(state));
        return false;
    }
    cuda_fail(state, status == cudaErrorMemoryAllocation ? ERROR_NO_MEMORY : ERROR_INTERNAL, "%s: %s", what,
              cudaGetErrorString(status));
    return false;
}

static bool cancelled(const struct cuda_state *state)
{
    return state->cancelled && *state->cancelled;
}

bool cuda_running(const struct cuda_state *state)
{
    return !state->failure && !cancelled(state);
}

void cuda_pace(struct cuda_state *state, unsigned launches)
{
    state->launches += launches;
    if (state->launches < CUDA_PACE_LAUNCHES)
        return;
    state->launches = 0;
    const int turn = state->next_pace;
    state->next_pace = (turn + 1) % CUDA_PACE_EVENTS;
    cuda_check(state, cudaEventRecord(state->pace[turn], state->compute), "keeping pace");
    cuda_check(state, cudaEventSynchronize(state->pace[state->next_pace]), "keeping pace"); /* the oldest */
}

int cuda_finish(struct cuda_state *state, struct error *error)
{
    cuda_check(state, cudaStreamSynchronize(state->compute), "waiting for the card"); /* which waited for `side` */
    const int failure = state->failure;
    state->failure = 0;
    if (cancelled(state))
        return error_set(error, ERROR_CANCELLED, "cancelled");
    return failure ? error_set(error, failure, "%s: %s", state->name, state->failure_text) : 0;
}

static int cuda_sync(struct kernels *k, struct error *error)
{
    return cuda_finish(cuda_of(k), error);
}

static void cuda_watch(struct kernels *k, const atomic_bool *flag)
{
    cuda_of(k)->cancelled = flag;
}

/* ---- memory ---- */
static void count(struct cuda_state *state, int64_t bytes)
{
    state->in_use += static_cast<uint64_t>(bytes);
    if (state->in_use > state->peak)
        state->peak = state->in_use.load();
}

static int no_memory(struct cuda_state *state, size_t bytes, const char *what, cudaError_t status, struct error *error)
{
    cudaGetLastError();
    state->kernels.lost |= is_fatal(status);
    size_t available = 0, total = 0;
    cudaMemGetInfo(&available, &total);
    return error_set(error, status == cudaErrorMemoryAllocation ? ERROR_NO_MEMORY : ERROR_INTERNAL,
                     "%s: no %.1f MB of its memory for %s (%s; %.1f MB are free)", state->name,
                     static_cast<double>(bytes) / 1e6, what, cudaGetErrorString(status),
                     static_cast<double>(available) / 1e6);
}

int cuda_weights_alloc(struct cuda_state *state, void **out, size_t bytes, const char *what, struct error *error)
{
    *out = NULL;
    if (!bytes)
        return 0;
    cudaError_t status = cudaMalloc(out, bytes);
    if (status == cudaErrorMemoryAllocation) { /* what the pool keeps for the next job may be what is missing */
        cudaGetLastError();
        cudaStreamSynchronize(state->compute);
        cudaMemPoolTrimTo(state->pool, 0);
        status = cudaMalloc(out, bytes);
    }
    if (status != cudaSuccess) {
        *out = NULL;
        return no_memory(state, bytes, what, status, error);
    }
    count(state, static_cast<int64_t>(bytes));
    return 0;
}

static void free_scratch(struct cuda_state *state, int purpose)
{
    if (!state->scratch[purpose].memory)
        return;
    cuda_check(state, cudaFreeAsync(state->scratch[purpose].memory, state->compute), "freeing scratch memory");
    state->scratch[purpose].memory = NULL;
    state->scratch[purpose].bytes = 0;
}

/* After something was freed: the last job is over, so others may have what the pool keeps; the model is gone,
 * so the scratch memory, too. */
static void give_back(struct cuda_state *state)
{
    for (int i = 0; i < SCRATCH_COUNT && state->in_use == 0; i++)
        free_scratch(state, i);
    if (state->working.empty()) {
        cuda_check(state, cudaStreamSynchronize(state->compute), "freeing memory");
        cuda_check(state, cudaMemPoolTrimTo(state->pool, 0), "freeing memory");
    }
}

void cuda_weights_free(struct cuda_state *state, void *memory, size_t bytes)
{
    if (!memory)
        return;
    cuda_check(state, cudaStreamSynchronize(state->compute), "freeing weights"); /* an operator may still read them */
    cuda_check(state, cudaFree(memory), "freeing weights");
    count(state, -static_cast<int64_t>(bytes));
    if (state->in_use == 0)
        give_back(state);
}

/* From the pool; once more after everything freed went back to the card. */
static cudaError_t allocate(struct cuda_state *state, void **out, size_t bytes)
{
    cudaError_t status = cudaMallocFromPoolAsync(out, bytes, state->pool, state->compute);
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        cudaStreamSynchronize(state->compute);
        cudaMemPoolTrimTo(state->pool, 0);
        status = cudaMallocFromPoolAsync(out, bytes, state->pool, state->compute);
    }
    return status;
}

static int cuda_memory_alloc(struct kernels *k, void **out, size_t bytes, struct error *error)
{
    struct cuda_state *state = cuda_of(k);
    *out = NULL;
    if (!bytes)
        return 0;
    void *memory = NULL;
    const cudaError_t status = allocate(state, &memory, bytes);
    if (status != cudaSuccess)
        return no_memory(state, bytes, "working memory", status, error);
    try {
        state->working[memory] = bytes;
    } catch (const std::bad_alloc &) {
        cudaFreeAsync(memory, state->compute);
        return error_set(error, ERROR_NO_MEMORY, "no memory to note a block of the card's memory");
    }
    count(state, static_cast<int64_t>(bytes));
    *out = memory;
    return 0;
}

static void cuda_memory_free(struct kernels *k, void *memory)
{
    struct cuda_state *state = cuda_of(k);
    const auto block = state->working.find(memory);
    if (block == state->working.end())
        return;
    count(state, -static_cast<int64_t>(block->second));
    state->working.erase(block);
    cuda_check(state, cudaFreeAsync(memory, state->compute), "freeing memory");
    if (state->working.empty())
        give_back(state);
}

static uint64_t cuda_memory_in_use(struct kernels *k)
{
    return cuda_of(k)->in_use;
}

static uint64_t cuda_memory_peak(struct kernels *k)
{
    return cuda_of(k)->peak;
}

/* What the card has free, and what the pool keeps without using it. */
static uint64_t cuda_memory_available(struct kernels *k)
{
    struct cuda_state *state = cuda_of(k);
    size_t available = 0, total = 0;
    uint64_t reserved = 0, used = 0;
    if (cudaStreamSynchronize(state->compute) != cudaSuccess || cudaMemGetInfo(&available, &total) != cudaSuccess ||
        cudaMemPoolGetAttribute(state->pool, cudaMemPoolAttrReservedMemCurrent, &reserved) != cudaSuccess ||
        cudaMemPoolGetAttribute(state->pool, cudaMemPoolAttrUsedMemCurrent, &used) != cudaSuccess)
        cudaGetLastError();
    return available + (reserved > used ? reserved - used : 0);
}

/* Whether there is enough scratch memory for a purpose already. If not, what is recorded is in vain: work
 * before may have the old one. */
static bool has_scratch(struct cuda_state *state, enum cuda_scratch purpose, size_t bytes)
{
    if (bytes <= state->scratch[purpose].bytes && state->scratch[purpose].memory)
        return true;
    cuda_graph_spoil(state, "scratch memory has to grow");
    return false;
}

static cudaError_t grow_scratch(struct cuda_state *state, enum cuda_scratch purpose, size_t bytes)
{
    free_scratch(state, purpose);
    void *memory = NULL;
    const cudaError_t status = allocate(state, &memory, bytes);
    if (status == cudaSuccess) {
        state->scratch[purpose].memory = memory;
        state->scratch[purpose].bytes = bytes;
    }
    return status;
}

void *cuda_scratch(struct cuda_state *state, enum cuda_scratch purpose, size_t bytes)
{
    if (has_scratch(state, purpose, bytes))
        return state->scratch[purpose].memory;
    if (cuda_graph_records(state)) {
        cuda_fail(state, ERROR_INTERNAL, "scratch memory has to grow while work is recorded");
        return NULL;
    }
    const cudaError_t status = grow_scratch(state, purpose, bytes);
    if (status != cudaSuccess) {
        struct error error;
        no_memory(state, bytes, "scratch", status, &error);
        cuda_fail(state, error.code, "%s", error.text);
    }
    return state->scratch[purpose].memory;
}

/* ---- transfers ---- */

/* The page-locked piece whose turn it is, once the card is done with it; NULL after a failure. */
static char *next_staging(struct cuda_state *state, cudaEvent_t *free)
{
    const int piece = state->next_staging;
    state->next_staging = (piece + 1) % CUDA_STAGING_PIECES;
    *free = state->staging[piece].free;
    return cuda_check(state, cudaEventSynchronize(*free), "transfer") ? state->staging[piece].host : NULL;
}

static void send_piece(struct cuda_state *state, void *device, const char *host, size_t bytes)
{
    cudaEvent_t free;
    char *staging = next_staging(state, &free);
    if (!staging)
        return;
    memcpy(staging, host, bytes);
    if (cuda_check(state, cudaMemcpyAsync(device, staging, bytes, cudaMemcpyHostToDevice, state->compute), "sending"))
        cuda_check(state, cudaEventRecord(free, state->compute), "sending");
}

/* A graph would find in the page-locked pieces what came there later. */
static bool transfers_possible(struct cuda_state *state)
{
    cuda_graph_spoil(state, "a transfer cannot be recorded");
    return !cuda_graph_records(state);
}

void cuda_send(struct cuda_state *state, void *device, const void *host, size_t bytes)
{
    if (!transfers_possible(state))
        return;
    const char *from = static_cast<const char *>(host);
    char *to = static_cast<char *>(device);
    for (size_t done = 0; done < bytes && cuda_running(state);) {
        const size_t piece = bytes - done < CUDA_STAGING_BYTES ? bytes - done : CUDA_STAGING_BYTES;
        send_piece(state, to + done, from + done, piece);
        done += piece;
    }
}

__global__ void __launch_bounds__(THREADS) to_act_kernel(const float *from, size_t n, bf16 *to)
{
    const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i < n)
        store_act(to + i, from[i]);
}

__global__ void __launch_bounds__(THREADS) from_act_kernel(const bf16 *from, size_t n, float *to)
{
    const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i < n)
        to[i] = load_act(from + i);
}

static const size_t PIECE_FLOATS = CUDA_STAGING_BYTES / sizeof(float);

static size_t piece_of(size_t n)
{
    return n < PIECE_FLOATS ? n : PIECE_FLOATS;
}

static void cuda_upload(struct kernels *k, act *to, const float *from, size_t n)
{
    struct cuda_state *state = cuda_of(k);
    if (!n)
        return;
    float *wide = static_cast<float *>(cuda_scratch(state, SCRATCH_TRANSFER, piece_of(n) * sizeof(float)));
    for (size_t done = 0; wide && done < n && cuda_running(state);) {
        const size_t piece = piece_of(n - done);
        cuda_send(state, wide, from + done, piece * sizeof(float));
        LAUNCH(to_act_kernel, cuda_pieces(piece, THREADS), THREADS, 0, state, wide, piece, values_of(to) + done);
        done += piece;
    }
}

static void cuda_param_upload(struct kernels *k, param *to, const float *from, size_t n)
{
    cuda_send(cuda_of(k), to, from, n * sizeof(float));
}

/* Fetch n values in pieces that `next(done, piece)` makes ready on the card, in the order of the stream. What cannot be
 * had is zero. */
template <typename Next> static void receive(struct cuda_state *state, float *to, size_t n, Next next)
{
    struct {
        const char *host;
        cudaEvent_t filled;
        float *to;
        size_t bytes;
    } before = {}, now = {};
    if (!transfers_possible(state)) {
        memset(to, 0, n * sizeof *to);
        return;
    }
    for (size_t done = 0; done < n || before.bytes; before = now) {
        now.bytes = 0;
        if (done < n) {
            const size_t piece = piece_of(n - done);
            const float *from = next(done, piece);
            char *staging = from ? next_staging(state, &now.filled) : NULL;
            now.host = staging;
            now.to = to + done;
            now.bytes = piece * sizeof(float);
            if (staging && cuda_check(state, cudaMemcpyAsync(staging, from, now.bytes, cudaMemcpyDeviceToHost,
                                                             state->compute), "fetching"))
                cuda_check(state, cudaEventRecord(now.filled, state->compute), "fetching");
            done += piece;
        }
        if (before.bytes) {
            if (before.host && cuda_check(state, cudaEventSynchronize(before.filled), "fetching"))
                memcpy(before.to, before.host, before.bytes);
            else
                memset(before.to, 0, before.bytes);
        }
    }
}

static void cuda_download(struct kernels *k, float *to, const act *from, size_t n)
{
    struct cuda_state *state = cuda_of(k);
    float *wide = n && cuda_running(state)
                      ? static_cast<float *>(cuda_scratch(state, SCRATCH_TRANSFER, piece_of(n) * sizeof(float)))
                      : NULL;
    receive(state, to, n, [=](size_t done, size_t piece) -> const float * {
        if (!wide || !cuda_running(state))
            return NULL;
        LAUNCH(from_act_kernel, cuda_pieces(piece, THREADS), THREADS, 0, state, values_of(from) + done, piece, wide);
        return wide;
    });
}

static void cuda_param_download(struct kernels *k, float *to, const param *from, size_t n)
{
    struct cuda_state *state = cuda_of(k);
    receive(state, to, n, [=](size_t done, size_t) { return cuda_running(state) ? values_of(from) + done : NULL; });
}

void cuda_fetch(struct cuda_state *state, void *host, const void *device, size_t bytes)
{
    const float *from = static_cast<const float *>(device);
    receive(state, static_cast<float *>(host), bytes / sizeof(float),
            [=](size_t done, size_t) { return cuda_running(state) ? from + done : NULL; });
}

static void cuda_param_to_act(struct kernels *k, act *to, const param *from, size_t n)
{
    LAUNCH(to_act_kernel, cuda_pieces(n, THREADS), THREADS, 0, cuda_of(k), values_of(from), n, values_of(to));
}

/* Whether a copy or clearing that these bytes tell entirely is to be enqueued now. */
static bool is_due(struct cuda_state *state, const void *what, size_t bytes)
{
    const enum cuda_turn turn = cuda_graph_turn(state, what, bytes);
    if (turn == TURN_NOT_THERE)
        cuda_graph_spoil(state, "another copy than before");
    return turn == TURN_ENQUEUE;
}

static void cuda_copy(struct kernels *k, act *to, const act *from, size_t n)
{
    struct cuda_state *state = cuda_of(k);
    const struct { const void *to, *from; size_t n; } what = {to, from, n};
    if (n && to != from && cuda_running(state) && is_due(state, &what, sizeof what))
        cuda_check(state, cudaMemcpyAsync(to, from, n * sizeof(bf16), cudaMemcpyDeviceToDevice, state->compute),
                   "copying");
}

static void cuda_zero(struct kernels *k, act *to, size_t n)
{
    struct cuda_state *state = cuda_of(k);
    const struct { const void *to; size_t n; } what = {to, n};
    if (n && cuda_running(state) && is_due(state, &what, sizeof what))
        cuda_check(state, cudaMemsetAsync(to, 0, n * sizeof(bf16), state->compute), "clearing");
}

/* ---- what the backend is opened and closed with ---- */
void cuda_memory_fill(struct kernels *k)
{
    k->memory_alloc = cuda_memory_alloc;
    k->memory_free = cuda_memory_free;
    k->memory_in_use = cuda_memory_in_use;
    k->memory_peak = cuda_memory_peak;
    k->memory_available = cuda_memory_available;
    k->upload = cuda_upload;
    k->download = cuda_download;
    k->param_upload = cuda_param_upload;
    k->param_download = cuda_param_download;
    k->param_to_act = cuda_param_to_act;
    k->copy = cuda_copy;
    k->zero = cuda_zero;
    k->sync = cuda_sync;
    k->watch = cuda_watch;
}

void cuda_memory_end(struct kernels *k)
{
    for (int i = 0; i < SCRATCH_COUNT; i++)
        free_scratch(cuda_of(k), i);
}
