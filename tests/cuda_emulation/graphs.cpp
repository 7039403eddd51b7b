/* graphs.cpp: recording work from streams, and running what was recorded; see cuda_runtime.h.
 *
 * Nothing that is recorded runs; a graph runs with the arguments it has when it is launched, in an order that its
 * dependencies allow but nobody would think of: what was recorded last goes first where nothing orders it. */
#include <set>

#include "streams.h"

struct emulated_executable {
    std::vector<emulated_node> nodes;
};

/* How often a graph was launched, for tests that want to know whether one was. */
extern "C" __attribute__((visibility("default"))) unsigned emulated_graph_launches;
unsigned emulated_graph_launches;

cudaError_t emulated_spoil(cudaStream_t stream, cudaError_t status)
{
    if (stream->capture)
        stream->capture->invalid = true;
    return emulated_fail(status);
}

void emulated_record(cudaStream_t stream, work_kind kind, emulated_work work, const char *name)
{
    auto &nodes = stream->capture->graph->nodes;
    nodes.push_back(std::make_unique<emulated_node>(
        emulated_node{nodes.size(), kind, std::move(work), name, stream->tail}));
    stream->tail = {nodes.back().get()};
}

bool emulated_wait_in_capture(cudaStream_t stream, cudaEvent_t event, cudaError_t *status)
{
    *status = cudaSuccess;
    if (!event->capture) {
        if (!stream->capture)
            return false;
        if (event->stream) /* a dependency on what is not recorded */
            *status = emulated_spoil(stream, cudaErrorStreamCaptureIsolation);
        return true;
    }
    if (event->capture->ended || (stream->capture && stream->capture != event->capture)) {
        *status = emulated_spoil(stream, cudaErrorCapturedEvent);
        return true;
    }
    stream->capture = event->capture;
    stream->tail.insert(stream->tail.end(), event->nodes.begin(), event->nodes.end());
    return true;
}

/* LANCED_EMULATION_CAPTURES: how many recordings succeed before one fails. */
static bool capture_possible()
{
    static unsigned long begun;
    const char *value = getenv("LANCED_EMULATION_CAPTURES");
    return !value || begun++ < strtoul(value, nullptr, 10);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode)
{
    if (emulated_health() != cudaSuccess)
        return emulated_fail(emulated_health());
    if (stream->capture || !capture_possible())
        return emulated_fail(cudaErrorStreamCaptureUnsupported);
    stream->capture = std::make_shared<emulated_capture>();
    stream->capture->graph = std::make_unique<emulated_graph>();
    stream->capture->origin = stream;
    stream->tail.clear();
    return cudaSuccess;
}

static void collect(const std::vector<cudaGraphNode_t> &nodes, std::set<cudaGraphNode_t> *into)
{
    for (cudaGraphNode_t node : nodes)
        if (into->insert(node).second)
            collect(node->after, into);
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    *graph = nullptr;
    if (!stream->capture || stream->capture->origin != stream)
        return emulated_fail(cudaErrorInvalidValue);
    const std::shared_ptr<emulated_capture> capture = stream->capture;
    std::set<cudaGraphNode_t> joined;
    collect(stream->tail, &joined);
    bool all = true;
    for (cudaStream_t one : emulated_streams) {
        if (one->capture != capture)
            continue;
        for (cudaGraphNode_t node : one->tail)
            all = all && joined.count(node);
        one->capture = nullptr;
        one->tail.clear();
    }
    capture->ended = true;
    if (emulated_health() != cudaSuccess)
        return emulated_fail(emulated_health());
    if (capture->invalid)
        return emulated_fail(cudaErrorStreamCaptureInvalidated);
    if (!all)
        return emulated_fail(cudaErrorStreamCaptureUnjoined);
    *graph = capture->graph.release();
    return cudaSuccess;
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus *status, unsigned long long *number,
                                     cudaGraph_t *graph, const cudaGraphNode_t **after, const cudaGraphEdgeData **edges,
                                     size_t *count)
{
    const emulated_capture *capture = stream->capture.get();
    *status = !capture           ? cudaStreamCaptureStatusNone
              : capture->invalid ? cudaStreamCaptureStatusInvalidated
                                 : cudaStreamCaptureStatusActive;
    if (number)
        *number = 1;
    if (graph)
        *graph = capture ? capture->graph.get() : nullptr;
    if (after)
        *after = stream->tail.data();
    if (edges)
        *edges = nullptr;
    if (count)
        *count = stream->tail.size();
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long)
{
    *executable = new emulated_executable;
    for (const auto &node : graph->nodes)
        (*executable)->nodes.push_back(*node);
    return cudaSuccess;
}

cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t executable, cudaGraphNode_t node,
                                             const cudaKernelNodeParams *parameters)
{
    emulated_counts.nodes_set++;
    if (node->number >= executable->nodes.size() || node->kind != WORK_KERNEL)
        return emulated_fail(cudaErrorInvalidValue);
    return emulated_kernel_work(parameters->func, parameters->gridDim, parameters->blockDim, parameters->kernelParams,
                                parameters->sharedMemBytes, &executable->nodes[node->number].work);
}

/* Later changes of its nodes do not reach a launch that was made.
 * LANCED_EMULATION_GRAPH_MEMORY=0: a card too full for one. */
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream)
{
    if (emulated_health() != cudaSuccess)
        return emulated_fail(emulated_health());
    const char *memory = getenv("LANCED_EMULATION_GRAPH_MEMORY");
    if (memory && !strcmp(memory, "0"))
        return emulated_fail(cudaErrorMemoryAllocation);
    const size_t count = executable->nodes.size();
    std::vector<bool> taken(count);
    for (size_t done = 0; done < count; done++) {
        size_t next = count;
        for (size_t i = count; i-- > 0 && next == count;) {
            bool ready = !taken[i];
            for (cudaGraphNode_t before : executable->nodes[i].after)
                ready = ready && taken[before->number];
            if (ready)
                next = i;
        }
        taken[next] = true;
        const emulated_node &node = executable->nodes[next];
        emulated_put(stream, node.kind, node.work, node.name);
    }
    emulated_graph_launches++;
    emulated_counts.graph_launches++;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable)
{
    delete executable;
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}
