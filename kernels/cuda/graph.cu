/* graph.cu: work that is enqueued again and again - the layers of a denoising step or of a token - becomes CUDA graphs,
 * which a card starts faster than the kernels one by one.
 *
 * A piece of work runs plainly the first time (scratch memory grows, libraries choose), is recorded the second time,
 * and from then on it is compared: the operators go through the same motions, but instead of being launched each kernel
 * is held against the one that was recorded in its place. Where grid or arguments differ (attention of more keys is cut
 * into more parts) the node in the graph is set anew; where the work itself is another, the piece is recorded again.
 * Then the graph is launched. (What differs with every token is read on the card: growing.cuh.) So a graph never plays
 * what the operators did not just ask for, whatever changed between two steps, addresses included, and the results are
 * the bytes of plain launches.
 *
 * What cannot be recorded runs plainly, from the same start: nothing of a piece has run until its graph is launched. */
#include "kernels/cuda/graph.cuh"
#include "kernels/cuda/operators.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <new>
#include <vector>

#if CUDART_VERSION < 13000 /* where what asks for edge data, too, has another name */
#undef cudaStreamGetCaptureInfo
#define cudaStreamGetCaptureInfo cudaStreamGetCaptureInfo_v3
#endif

/* Something that was recorded, in the order of the calls. */
struct recorded {
    cudaGraphNode_t node; /* of a kernel; NULL for anything else */
    const void *kernel;
    dim3 grid, block;
    size_t shared_bytes;
    cudaStream_t stream;
    size_t first, bytes;  /* its arguments, or what tells it, in piece.data */
};

enum { FAILURES_MAX = 3, CHANGES_MAX = 4 };

struct piece {
    bool has_run;
    int failures;               /* to record it */
    int changes;                /* times in a row that the work was not what had been recorded */
    cudaGraph_t graph;
    cudaGraphExec_t executable; /* NULL: not recorded */
    std::vector<struct recorded> calls;
    std::vector<unsigned char> data;
};

struct graph {
    std::vector<struct piece> pieces;
};

struct cuda_recording {
    struct piece *piece;
    bool comparing;    /* with what was recorded; otherwise recording */
    size_t next;       /* call to compare with */
    const char *spoilt; /* why it is in vain, or NULL */
};

bool cuda_graph_records(const struct cuda_state *state)
{
    return state->recording && !state->recording->comparing;
}

bool cuda_graph_compares(const struct cuda_state *state)
{
    return state->recording && state->recording->comparing;
}

void cuda_graph_spoil(struct cuda_state *state, const char *why)
{
    if (state->recording && !state->recording->spoilt)
        state->recording->spoilt = why;
}

static bool same(dim3 one, dim3 other)
{
    return one.x == other.x && one.y == other.y && one.z == other.z;
}

/* Note a call in the recording. */
static void note(struct cuda_state *state, struct recorded call, void *const *parts, const size_t *sizes, int count)
{
    struct piece *piece = state->recording->piece;
    call.first = piece->data.size();
    try {
        for (int i = 0; i < count; i++) {
            const unsigned char *part = static_cast<const unsigned char *>(parts[i]);
            piece->data.insert(piece->data.end(), part, part + sizes[i]);
            call.bytes += sizes[i];
        }
        piece->calls.push_back(call);
    } catch (const std::bad_alloc &) {
        cuda_graph_spoil(state, "no memory to note a call");
    }
}

/* ---- comparing ---- */

/* The recorded call whose turn it is; NULL when there is none, or nothing can be saved any more. */
static struct recorded *expected(struct cuda_recording *r)
{
    return r->spoilt || r->next == r->piece->calls.size() ? NULL : &r->piece->calls[r->next];
}

/* Overwrite the arguments that are noted; whether one of them was another. */
static bool update(struct piece *piece, const struct recorded *call, const struct cuda_call *now)
{
    unsigned char *at = piece->data.data() + call->first;
    bool changed = false;
    for (int i = 0; i < now->count; at += now->sizes[i++])
        if (memcmp(at, now->arguments[i], now->sizes[i])) {
            memcpy(at, now->arguments[i], now->sizes[i]);
            changed = true;
        }
    return changed;
}

static void compare(struct cuda_recording *r, const struct cuda_call *now)
{
    struct recorded *call = expected(r);
    if (!call || !call->node || call->kernel != now->kernel || !same(call->block, now->block) ||
        call->shared_bytes != now->shared_bytes || call->stream != now->stream) {
        r->spoilt = "another kernel than before";
        return;
    }
    r->next++;
    if (!update(r->piece, call, now) && same(call->grid, now->grid))
        return;
    call->grid = now->grid;
    struct cudaKernelNodeParams parameters = {};
    parameters.func = const_cast<void *>(now->kernel);
    parameters.gridDim = now->grid;
    parameters.blockDim = now->block;
    parameters.sharedMemBytes = static_cast<unsigned>(now->shared_bytes);
    parameters.kernelParams = now->arguments;
    if (cudaGraphExecKernelNodeSetParams(r->piece->executable, call->node, &parameters) != cudaSuccess) {
        cudaGetLastError();
        r->spoilt = "a kernel whose arguments cannot be set";
    }
}

/* ---- the operators' side ---- */
static bool start(struct cuda_state *state, const struct cuda_call *call)
{
    const size_t always_there = 48 << 10;
    if (call->shared_bytes > always_there &&
        !cuda_check(state, cudaFuncSetAttribute(call->kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                static_cast<int>(call->shared_bytes)), call->name))
        return false;
    return cuda_check(
        state,
        cudaLaunchKernel(call->kernel, call->grid, call->block, call->arguments, call->shared_bytes, call->stream),
        call->name);
}

/* The node that a launch just became. */
static cudaGraphNode_t last_node(cudaStream_t stream)
{
    enum cudaStreamCaptureStatus status;
    const cudaGraphNode_t *after = NULL;
    const cudaGraphEdgeData *edges = NULL; /* not read; but not to ask is an error where one is programmatic */
    size_t count = 0;
    if (cudaStreamGetCaptureInfo(stream, &status, NULL, NULL, &after, &edges, &count) != cudaSuccess ||
        status != cudaStreamCaptureStatusActive || count != 1)
        return NULL;
    return after[0];
}

void cuda_enqueue(struct cuda_state *state, const struct cuda_call *call)
{
    struct cuda_recording *r = state->recording;
    state->last_kernel = call->name;
    if (r && r->comparing) {
        compare(r, call);
        return;
    }
    if (!start(state, call))
        return;
    if (!r) {
        cuda_pace(state, 1);
        return;
    }
    struct recorded recorded = {};
    recorded.node = last_node(call->stream);
    recorded.kernel = call->kernel;
    recorded.grid = call->grid;
    recorded.block = call->block;
    recorded.shared_bytes = call->shared_bytes;
    recorded.stream = call->stream;
    if (!recorded.node)
        cuda_graph_spoil(state, "a kernel was not recorded");
    note(state, recorded, call->arguments, call->sizes, call->count);
}

enum cuda_turn cuda_graph_turn(struct cuda_state *state, const void *what, size_t bytes)
{
    struct cuda_recording *r = state->recording;
    if (!r)
        return TURN_ENQUEUE;
    if (r->comparing) {
        const struct recorded *call = expected(r);
        if (!call || call->node || call->bytes != bytes || memcmp(r->piece->data.data() + call->first, what, bytes))
            return TURN_NOT_THERE;
        r->next++;
        return TURN_DONE;
    }
    const struct recorded recorded = {};
    void *const parts[] = {const_cast<void *>(what)};
    note(state, recorded, parts, &bytes, 1);
    return TURN_ENQUEUE;
}

/* ---- pieces of work ---- */

/* Every turn of a piece begins alike: what operators remember of earlier ones is forgotten. */
static void do_work(struct cuda_state *state, void (*work)(void *context), void *context)
{
    cuda_linear_forget(state);
    work(context);
}

static void drop(struct piece *piece)
{
    if (piece->executable)
        cudaGraphExecDestroy(piece->executable);
    if (piece->graph)
        cudaGraphDestroy(piece->graph);
    piece->executable = NULL;
    piece->graph = NULL;
    piece->calls.clear();
    piece->data.clear();
}

/* Whether the recorded graph is, with its arguments as they are now, this very work. */
static bool still_right(struct cuda_state *state, struct piece *piece, void (*work)(void *context), void *context)
{
    struct cuda_recording recording = {piece, true, 0, NULL};
    state->recording = &recording;
    do_work(state, work, context);
    state->recording = NULL;
    return !recording.spoilt && recording.next == piece->calls.size();
}

/* Record the piece; NULL, or why that cannot be. */
static const char *record(struct cuda_state *state, struct piece *piece, void (*work)(void *context), void *context)
{
    cudaError_t status = cudaStreamBeginCapture(state->compute, cudaStreamCaptureModeRelaxed);
    if (status != cudaSuccess) {
        cudaGetLastError();
        return cudaGetErrorString(status);
    }
    struct cuda_recording recording = {piece, false, 0, NULL};
    state->recording = &recording;
    do_work(state, work, context);
    state->recording = NULL;
    status = cudaStreamEndCapture(state->compute, &piece->graph);
    if (status == cudaSuccess && cuda_running(state) && !recording.spoilt)
        status = cudaGraphInstantiate(&piece->executable, piece->graph, 0);
    if (status != cudaSuccess)
        cudaGetLastError();
    if (recording.spoilt)
        return recording.spoilt;
    if (state->failure)
        return state->failure_text;
    return status == cudaSuccess ? NULL : cudaGetErrorString(status);
}

/* NULL, or why the graph could not be started: its first launch takes memory of the card. */
static const char *launch(struct cuda_state *state, const struct piece *piece)
{
    if (!cuda_running(state))
        return NULL;
    const cudaError_t status = cudaGraphLaunch(piece->executable, state->compute);
    if (status == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        return cudaGetErrorString(status);
    }
    if (cuda_check(state, status, "a graph of kernels"))
        cuda_pace(state, CUDA_PACE_LAUNCHES);
    return NULL;
}

/* NULL when there is no memory. */
static struct piece *find(struct graph **graph, int number)
{
    try {
        if (!*graph)
            *graph = new struct graph;
        if ((*graph)->pieces.size() <= static_cast<size_t>(number))
            (*graph)->pieces.resize(static_cast<size_t>(number) + 1);
    } catch (const std::bad_alloc &) {
        return NULL;
    }
    return &(*graph)->pieces[static_cast<size_t>(number)];
}

/* What failed while nothing but recording was done has not happened, unless the card is lost. */
static void note_failure(struct cuda_state *state, struct piece *piece, const char *why)
{
    if (++piece->failures == FAILURES_MAX)
        snprintf(state->kernels.notice, sizeof state->kernels.notice,
                 "no CUDA graph of some work, its kernels are launched one by one: %.300s", why);
    if (!state->kernels.lost)
        state->failure = 0;
    drop(piece);
}

/* Drop a graph that is not right any more. NULL, or why not to record another: making them
 * costs more than they bring. */
static const char *give_up(struct cuda_state *state, struct piece *piece)
{
    cuda_check(state, cudaStreamSynchronize(state->compute), "waiting for a graph");
    drop(piece);
    if (!cuda_running(state) || ++piece->changes < CHANGES_MAX)
        return NULL;
    piece->failures = FAILURES_MAX - 1; /* the next is the last */
    return "it is another each time";
}

/* Whether the work is done; otherwise it is to be done plainly. */
static bool done_by_graph(struct cuda_state *state, struct piece *piece, void (*work)(void *context), void *context)
{
    if (!piece->has_run || piece->failures == FAILURES_MAX)
        return false;
    const char *why = NULL;
    if (piece->executable && still_right(state, piece, work, context))
        piece->changes = 0;
    else if (piece->executable)
        why = give_up(state, piece);
    if (!cuda_running(state))
        return true;
    if (!why && !piece->executable)
        why = record(state, piece, work, context);
    if (!why && piece->executable)
        why = launch(state, piece);
    if (why)
        note_failure(state, piece, why);
    else if (!piece->executable)
        drop(piece); /* cancelled while it was recorded */
    return !why;
}

static void run(struct cuda_state *state, struct piece *piece, void (*work)(void *context), void *context)
{
    if (!done_by_graph(state, piece, work, context)) {
        do_work(state, work, context);
        piece->has_run |= cuda_running(state); /* to its end */
    }
    cuda_linear_forget(state); /* what comes may not wait for events of a recording */
}

static void cuda_graph_run(struct kernels *k, struct graph **graph, int number, void (*work)(void *context),
                           void *context)
{
    struct cuda_state *state = cuda_of(k);
    if (!cuda_running(state))
        return;
    if (!state->graphs) {
        work(context);
        return;
    }
    struct piece *piece = find(graph, number);
    if (piece)
        run(state, piece, work, context);
    else
        work(context);
}

static void cuda_graph_close(struct kernels *k, struct graph *graph)
{
    if (!graph)
        return;
    cudaStreamSynchronize(cuda_of(k)->compute); /* one of them may be running */
    for (struct piece &piece : graph->pieces)
        drop(&piece);
    delete graph;
}

void cuda_graph_fill(struct kernels *k)
{
    const char *wish = getenv("LANCED_CUDA_GRAPHS");
    cuda_of(k)->graphs = !wish || strcmp(wish, "off") != 0;
    k->graph_run = cuda_graph_run;
    k->graph_close = cuda_graph_close;
}
