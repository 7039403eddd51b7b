/* graph.cuh: how operators enqueue their work, so that graph.cu can record it and play it again.
 *
 * Kernels go through LAUNCH (launch.cuh). What else an operator enqueues (a copy, a call of a library) is announced
 * with cuda_graph_turn. Events between `compute` and `side` need nothing: within a recording they become its order. But
 * an operator that forks must join again before it returns, and within a call every event is recorded before it is
 * waited for: an event from outside may not be waited for while work is recorded, nor one of a recording afterwards. */
#ifndef LANCE_CUDA_GRAPH_CUH
#define LANCE_CUDA_GRAPH_CUH

#include "kernels/cuda/state.cuh"

/* A kernel with everything that is needed to start it. */
struct cuda_call {
    const char *name;
    const void *kernel;
    dim3 grid, block;
    size_t shared_bytes;
    cudaStream_t stream;
    void **arguments;    /* where each of them is */
    const size_t *sizes; /* and its bytes */
    int count;
};

/* Start a kernel, or note that it belongs to what is played again. A failure is noted. */
void cuda_enqueue(struct cuda_state *state, const struct cuda_call *call);

/* Of work that is no kernel and is told entirely by the `bytes` at `what`: whether to enqueue it now (on `compute`). */
enum cuda_turn {
    TURN_ENQUEUE,   /* yes */
    TURN_DONE,      /* no: it is in the graph that will be launched */
    TURN_NOT_THERE, /* no: the graph has something else here; try what is done otherwise, or cuda_graph_spoil */
};
enum cuda_turn cuda_graph_turn(struct cuda_state *state, const void *what, size_t bytes);

/* What is happening cannot be part of a graph. Also when a library that does the work plainly fails while it is
 * recorded: what is done in its place has other bytes. */
void cuda_graph_spoil(struct cuda_state *state, const char *why);

/* Whether work is being recorded right now, so that nothing may be allocated or waited for on the streams. */
bool cuda_graph_records(const struct cuda_state *state);

/* Whether work is being compared right now: nothing is enqueued, and events need not be recorded or waited for. */
bool cuda_graph_compares(const struct cuda_state *state);

#endif
