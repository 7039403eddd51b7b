/* streams.h: what is put on a stream of the emulation, or recorded from it; inside the emulation only. */
#ifndef LANCE_EMULATION_STREAMS_H
#define LANCE_EMULATION_STREAMS_H

#include <deque>
#include <memory>
#include <vector>

#include "cuda_runtime.h"

enum work_kind { WORK_KERNEL, WORK_COPY, WORK_FREE, WORK_WAIT };

/* Work of a graph, and the nodes it comes after. */
struct emulated_node {
    size_t number; /* in its graph */
    work_kind kind;
    emulated_work work;
    const char *name;
    std::vector<cudaGraphNode_t> after;
};
struct emulated_graph {
    std::vector<std::unique_ptr<emulated_node>> nodes;
};
struct emulated_capture {
    std::unique_ptr<emulated_graph> graph;
    cudaStream_t origin;
    bool invalid, ended;
};
struct emulated_stream : emulated_stream_head {
    struct entry {
        work_kind kind;
        emulated_work work;
    };
    bool hurries = false;
    std::deque<entry> waiting;
    uint64_t taken = 0, put = 0;               /* how many were taken from it, and put on it */
    std::shared_ptr<emulated_capture> capture; /* set: work goes into its graph, after the nodes of `tail` */
    std::vector<cudaGraphNode_t> tail;
};
struct emulated_event {
    cudaStream_t stream = nullptr;
    uint64_t after = 0;                        /* done when the stream has run so many */
    std::shared_ptr<emulated_capture> capture; /* or recorded in one, after these nodes */
    std::vector<cudaGraphNode_t> nodes;
};

/* Note an error for cudaGetLastError, and give it back. */
cudaError_t emulated_fail(cudaError_t status);

/* cudaSuccess, until a kernel has failed in a way that a program does not get over: then that, again and again. */
cudaError_t emulated_health();

/* What the host has asked of the card, since the program began; tests look for it in the plugin. */
struct emulated_counts {
    unsigned long kernels;        /* the first: that were put on a stream, those of graphs too */
    unsigned long graph_launches;
    unsigned long nodes_set;      /* nodes of graphs whose arguments were set anew */
    unsigned long events, waits, syncs;
    unsigned long copies, bytes_to_card, bytes_to_host;
};
extern "C" __attribute__((visibility("default"))) struct emulated_counts emulated_counts;
void emulated_count_kernel(const char *name);
void emulated_count_wait();

/* LANCED_EMULATION_DRY=1: nothing is computed and nothing sent, so that work of any size can be counted. What the host
 * is given are the numbers 0 and 1 in turn: finite, and no difference (0) of something (1) to who compares. */
bool emulated_is_dry();
void emulated_fill_dry(void *host, size_t bytes);

/* Put work on a stream, or into the graph that is recorded from it. */
void emulated_put(cudaStream_t stream, work_kind kind, emulated_work work, const char *name);

/* The latter. */
void emulated_record(cudaStream_t stream, work_kind kind, emulated_work work, const char *name);

/* What cannot be recorded was tried: the recording is spoilt. */
cudaError_t emulated_spoil(cudaStream_t stream, cudaError_t status);

/* The part of cudaStreamWaitEvent that has to do with recordings: true when it was all of it. */
bool emulated_wait_in_capture(cudaStream_t stream, cudaEvent_t event, cudaError_t *status);

/* The work of a kernel's blocks; nothing and an error when it cannot be launched so. */
cudaError_t emulated_kernel_work(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared_bytes,
                                 emulated_work *work);

/* All streams there are. */
extern std::vector<cudaStream_t> emulated_streams;

#endif
