/* attention_library.cu: which attention cuDNN does, and in which form it gets it.
 *
 * It gets problems of many rows without a mask: the blocks of a denoising step and of reference pictures. Keys and
 * values, which lie in several segments, are first copied into one piece; its rows are rounded up and the rest is zero,
 * so that prompts of any length share the library's plans (cudnn.h). The copy is read and written once, against an
 * arithmetic that reads every key once for each block of rows. Causal problems stay with our own kernel: they are one
 * piece of text each, of a length of its own, and making a plan would take longer than the plan saves.
 *
 * The library is trusted for a shape only after some of its rows were compared with our own kernel's. Whatever it
 * refuses or gets wrong is our own kernel's from then on, which the backend's name says from then on.
 *
 * All that decides is the shape, so the same request gives the same bytes. Free memory does not: without
 * the memory that the library needs a job fails, as without any other scratch memory. The reserve that
 * admission keeps is there for it. */
#include "kernels/cuda/attention_parts.cuh"
#include "kernels/cuda/cudnn.h"
#include "kernels/cuda/graph.cuh"
#include "kernels/cuda/launch.cuh"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <new>

struct attention_library {
    struct cudnn *cudnn;
};

namespace {

enum {
    KEY_STEP = 256,    /* rows that keys and values are rounded up to */
    THREADS = 256,
    CHECKED_ROWS = 64, /* at the first, the middle and the last rows */
    CHECKED_PLACES = 3,
    COUNT_INTS = 4,    /* 16 bytes for each number */
#ifdef CUDA_EMULATION
    LEAST_ROWS = CHECKED_PLACES * CHECKED_ROWS, /* which tests can afford */
#else
    LEAST_ROWS = 512,
#endif
};
const float LARGEST_DIFFERENCE = 4.0f / 256.0f; /* relative: both round weights and results to bf16, by 2^-9 at most */

/* Where everything of a problem lies in SCRATCH_KEYS. */
struct room {
    int *counts;          /* of rows, of keys: [2][COUNT_INTS] */
    bf16 *keys, *values;  /* [most_keys, width] */
    bf16 *checked;        /* [CHECKED_PLACES][CHECKED_ROWS, heads * head_dim] */
    float *differences;   /* [CHECKED_PLACES][2] */
    int most_keys, width;
};

size_t aligned(size_t bytes)
{
    return (bytes + 255) & ~(size_t)255;
}

__global__ void __launch_bounds__(THREADS)
    gather_kernel(const __grid_constant__ struct attention_problem p, struct room room)
{
    const size_t pieces = (size_t)(room.width / 8), i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    if (i == 0 && blockIdx.y == 0) {
        room.counts[0] = p.rows / p.group;
        room.counts[COUNT_INTS] = p.keys;
    }
    if (i >= (size_t)room.most_keys * pieces)
        return;
    const int row = (int)(i / pieces), column = (int)(i % pieces) * 8;
    uint4 value = make_uint4(0, 0, 0, 0);
    if (row < p.keys) {
        struct key_cursor at = {0, 0};
        advance(p, &at, row);
        const bf16 *from = blockIdx.y ? p.segment[at.segment].values : p.segment[at.segment].keys;
        value = *(const uint4 *)(from + (size_t)(row - at.first_key) * (size_t)p.segment[at.segment].stride + column);
    }
    *(uint4 *)((blockIdx.y ? room.values : room.keys) + (size_t)row * (size_t)room.width + column) = value;
}

/* [|got - want|^2, |want|^2] of rows, one block, added in a fixed order. */
__global__ void __launch_bounds__(THREADS)
    difference_kernel(const bf16 *got, int got_stride, const bf16 *want, int rows, int width, float *result)
{
    __shared__ float difference[THREADS], size[THREADS];
    float d = 0.0f, s = 0.0f;
    for (int row = 0; row < rows; row++)
        for (int column = (int)threadIdx.x; column < width; column += THREADS) {
            const float w = load_act(want + (size_t)row * (size_t)width + column);
            const float off = load_act(got + (size_t)row * (size_t)got_stride + column) - w;
            d += off * off;
            s += w * w;
        }
    difference[threadIdx.x] = d;
    size[threadIdx.x] = s;
    __syncthreads();
    if (threadIdx.x)
        return;
    for (int i = 1; i < THREADS; i++) {
        d += difference[i];
        s += size[i];
    }
    result[0] = d;
    result[1] = s;
}

/* The rows first .. first + CHECKED_ROWS - 1 of a problem, by our own kernel, beside the library's result. */
void compare_rows(struct cuda_state *state, const struct attention_problem *p, int first, bf16 *own, float *result)
{
    const int width = p->kv_heads * p->group * p->head_dim;
    struct attention_problem part = *p;
    part.q = p->q + (size_t)first * (size_t)p->q_stride;
    part.out = own;
    part.out_stride = width;
    part.rows = CHECKED_ROWS * p->group;
    attention_own(state, &part);
    LAUNCH(difference_kernel, dim3(1), dim3(THREADS), 0, state, p->out + (size_t)first * (size_t)p->out_stride,
           p->out_stride, own, (int)CHECKED_ROWS, width, result);
}

/* Whether the library's result, which was just enqueued, is our own kernel's. Waits for it. */
bool is_right(struct cuda_state *state, struct cudnn_plan *plan, const struct attention_problem *p,
              const struct room *room)
{
    struct cudnn *cudnn = state->attention_library->cudnn;
    const int rows = p->rows / p->group, width = p->kv_heads * p->group * p->head_dim;
    const int first[CHECKED_PLACES] = {0, (rows - CHECKED_ROWS) / 2, rows - CHECKED_ROWS};
    float found[CHECKED_PLACES][2] = {};
    for (int i = 0; i < CHECKED_PLACES; i++)
        compare_rows(state, p, first[i], room->checked + (size_t)i * CHECKED_ROWS * (size_t)width,
                     room->differences + 2 * i);
    if (!cuda_running(state) ||
        !cuda_check(state,
                    cudaMemcpyAsync(found, room->differences, sizeof found, cudaMemcpyDeviceToHost, state->compute),
                    "checking cuDNN") ||
        !cuda_check(state, cudaStreamSynchronize(state->compute), "checking cuDNN"))
        return true; /* the job is over, the question stays open */
    float worst = 0.0f;
    bool something = false;
    for (int i = 0; i < CHECKED_PLACES; i++) {
        something = something || found[i][1] > 0.0f;
        const float relative = found[i][0] > 0.0f ? sqrtf(found[i][0] / found[i][1]) : found[i][0]; /* NaN stays NaN */
        worst = relative > worst || relative != relative ? relative : worst;
    }
    if (!(worst <= LARGEST_DIFFERENCE)) {
        char why[100];
        snprintf(why, sizeof why, "its result is off by %.2g of our own kernel's", (double)worst);
        cudnn_refuse(cudnn, plan, why);
        return false;
    }
    if (something) /* zeros prove nothing */
        cudnn_plan_prove(plan);
    return true;
}

/* Room for a problem; false when the card has none, which is noted. */
bool make_room(struct cuda_state *state, const struct attention_problem *p, struct room *room)
{
    room->width = p->kv_heads * p->head_dim;
    room->most_keys = (p->keys + KEY_STEP - 1) / KEY_STEP * KEY_STEP;
    const size_t heading = aligned(2 * COUNT_INTS * sizeof(int) + CHECKED_PLACES * 2 * sizeof(float));
    const size_t matrix = aligned((size_t)room->most_keys * (size_t)room->width * sizeof(bf16));
    const size_t checked = (size_t)CHECKED_PLACES * CHECKED_ROWS * (size_t)(room->width * p->group) * sizeof(bf16);
    char *memory = (char *)cuda_scratch(state, SCRATCH_KEYS, heading + 2 * matrix + checked);
    if (!memory)
        return false;
    room->counts = (int *)memory;
    room->differences = (float *)(room->counts + 2 * COUNT_INTS);
    room->keys = (bf16 *)(memory + heading);
    room->values = (bf16 *)(memory + heading + matrix);
    room->checked = (bf16 *)(memory + heading + 2 * matrix);
    return true;
}

struct cudnn_attention describe(const struct attention_problem *p, const struct room *room, float scale)
{
    struct cudnn_attention a;
    memset(&a, 0, sizeof a); /* as run wants it */
    a.q = p->q, a.k = room->keys, a.v = room->values, a.out = p->out;
    a.row_count = room->counts, a.key_count = room->counts + COUNT_INTS;
    a.q_rows = p->rows / p->group, a.most_keys = room->most_keys;
    a.heads = p->kv_heads * p->group, a.kv_heads = p->kv_heads, a.head_dim = p->head_dim;
    a.q_stride = p->q_stride, a.kv_stride = room->width, a.out_stride = p->out_stride;
    a.scale = scale;
    return a;
}

/* Note that the library had no memory, if that is why it failed. */
bool is_starved(struct cuda_state *state)
{
    if (!cudnn_starved(state->attention_library->cudnn))
        return false;
    cuda_fail(state, ERROR_NO_MEMORY, "cuDNN has no memory for its attention; another program may have taken it");
    return true;
}

/* False: our own kernel has to. */
bool run(struct cuda_state *state, struct cudnn_plan *plan, const struct attention_problem *p, const struct room *room,
         const struct cudnn_attention *a)
{
    struct { /* all that the call depends on */
        struct cudnn_attention attention;
        void *workspace;
        uint64_t plan;
    } call;
    memset(&call, 0, sizeof call); /* its padding, too: recorded calls are compared as bytes */
    memcpy(&call.attention, a, sizeof *a);
    call.plan = cudnn_plan_number(plan);
    const size_t bytes = cudnn_plan_workspace(plan);
    if (bytes && !(call.workspace = cuda_scratch(state, SCRATCH_LIBRARY, bytes)))
        return true; /* the job is over */
    LAUNCH(gather_kernel, dim3(cuda_pieces((size_t)room->most_keys * (size_t)(room->width / 8), THREADS), 2),
           dim3(THREADS), 0, state, *p, *room);
    if (!cuda_running(state))
        return true;
    const enum cuda_turn turn = cuda_graph_turn(state, &call, sizeof call);
    if (turn != TURN_ENQUEUE)
        return turn == TURN_DONE;
    const char *failure = cudnn_run(state->attention_library->cudnn, plan, a, call.workspace, state->compute);
    if (state->recording) { /* plainly the library did it: the plan is proven */
        if (failure)
            cuda_graph_spoil(state, "cuDNN's attention cannot be recorded");
        cudnn_starved(state->attention_library->cudnn); /* it will be tried plainly */
        return true;
    }
    if (failure && is_starved(state))
        return true;
    if (failure) {
        cudnn_refuse(state->attention_library->cudnn, plan, failure);
        return false;
    }
    cuda_pace(state, 1);
    return cudnn_plan_proven(plan) || is_right(state, plan, p, room);
}

/* A plan that can be used now, or NULL. While work is recorded or compared with a recording
 * none can be made, or proven. */
struct cudnn_plan *plan_for(struct cuda_state *state, const struct cudnn_attention *a)
{
    struct cudnn *cudnn = state->attention_library->cudnn;
    struct cudnn_plan *plan = cudnn_plan_find(cudnn, a);
    if (plan && !cudnn_plan_possible(plan))
        return NULL;
    if (state->recording && !(plan && cudnn_plan_proven(plan))) {
        cuda_graph_spoil(state, "a plan of cuDNN has to be made");
        return NULL;
    }
    if (!plan && cuda_check(state, cudaStreamSynchronize(state->compute), "waiting for the plans that are in use"))
        plan = cudnn_plan_make(cudnn, a);
    if (!plan)
        is_starved(state);
    return plan && cudnn_plan_possible(plan) ? plan : NULL;
}

/* For the log, where nothing else waits to be told. */
void tell(struct cuda_state *state, const char *what)
{
    if (*what && !state->kernels.notice[0])
        snprintf(state->kernels.notice, sizeof state->kernels.notice, "%s", what);
}

} // namespace

bool attention_by_library(struct cuda_state *state, const struct attention_problem *p, float scale)
{
    struct attention_library *library = state->attention_library;
    if (!library || p->causal_from < p->keys || p->rows / p->group < LEAST_ROWS ||
        (p->head_dim != 64 && p->head_dim != 128))
        return false;
    struct room room;
    if (!make_room(state, p, &room))
        return true; /* the job is over */
    const struct cudnn_attention a = describe(p, &room, scale);
    struct cudnn_plan *plan = plan_for(state, &a);
    const bool done = plan && run(state, plan, p, &room, &a);
    tell(state, cudnn_complaint(library->cudnn));
    cuda_name_refused(state, REFUSED_ATTENTION, cudnn_refused(library->cudnn));
    return done;
}

void attention_library_open(struct cuda_state *state)
{
#ifdef CUDA_EMULATION /* which has no card that a real library could use */
    if (!getenv("LANCED_CUDNN"))
        return;
#endif
    struct cudnn *cudnn = cudnn_open();
    struct attention_library *library = cudnn ? new (std::nothrow) attention_library() : NULL;
    if (!library) {
        cudnn_close(cudnn);
        return;
    }
    library->cudnn = cudnn;
    state->attention_library = library;
}

void attention_library_close(struct cuda_state *state)
{
    if (!state->attention_library)
        return;
    cudnn_close(state->attention_library->cudnn);
    delete state->attention_library;
    state->attention_library = NULL;
}
