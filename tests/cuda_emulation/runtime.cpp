/* runtime.cpp: devices, memory, streams and events of the emulation; see cuda_runtime.h.
 *
 * A stream keeps what was put on it until somebody waits for it, as late as a card may run it: host
 * memory that is freed or changed too early, and a missing wait between two streams, show in the results
 * or in the address sanitizer. */
#include <stdio.h>
#include <sys/mman.h>

#include <map>

#include "accesses.h"
#include "streams.h"
#include "threads.h"

struct emulated_pool {
    int device;
};

static cudaError_t last_error = cudaSuccess;
static cudaError_t health = cudaSuccess;
std::vector<cudaStream_t> emulated_streams;

cudaError_t emulated_fail(cudaError_t status)
{
    last_error = status;
    return status;
}

cudaError_t emulated_health()
{
    return health;
}

static cudaError_t fail(cudaError_t status)
{
    return emulated_fail(health != cudaSuccess ? health : status);
}

/* What calls that enqueue or wait answer when nothing is wrong with them. */
static cudaError_t answer()
{
    return health == cudaSuccess ? cudaSuccess : fail(health);
}

/* On a card that has failed nothing runs any more; only the memory is given back, as at the program's end. */
static void run_until(cudaStream_t stream, uint64_t number)
{
    while (stream->taken < number && !stream->waiting.empty()) {
        emulated_stream::entry next = std::move(stream->waiting.front());
        stream->waiting.pop_front();
        if (health == cudaSuccess || next.kind == WORK_FREE || next.kind == WORK_WAIT)
            next.work();
        stream->taken++;
    }
}

/* LANCED_EMULATION_STREAMS=early: the second of every two streams that are opened runs at once what is put on it, and
 * of the others no more than that waits for. (The backend opens `compute`, then `side`.) */
static bool is_early(cudaStream_t stream)
{
    const char *wish = getenv("LANCED_EMULATION_STREAMS");
    return stream->hurries && wish && !strcmp(wish, "early");
}

void emulated_put(cudaStream_t stream, work_kind kind, emulated_work work, const char *name)
{
    if (stream->capture) {
        emulated_record(stream, kind, std::move(work), name);
        return;
    }
    if (kind == WORK_KERNEL)
        emulated_count_kernel(name);
    if (emulated_is_dry() && (kind == WORK_COPY || (kind == WORK_KERNEL && !accesses_recorded())))
        return;
    stream->waiting.push_back({kind, std::move(work)});
    stream->put++;
    if (is_early(stream))
        run_until(stream, stream->put);
}

const char *cudaGetErrorString(cudaError_t status)
{
    switch (status) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorIllegalAddress: return "an illegal memory access was encountered";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureUnjoined: return "capturing stream has unjoined work";
    case cudaErrorStreamCaptureIsolation: return "dependency created on uncaptured work in another stream";
    case cudaErrorCapturedEvent: return "operation not permitted on an event last recorded in a capturing stream";
    default: break;
    }
    return "unknown error";
}

cudaError_t cudaGetLastError()
{
    const cudaError_t status = last_error;
    last_error = health;
    return status;
}

/* LANCED_EMULATION_CARDS, LANCED_EMULATION_MEMORY (bytes) and LANCED_EMULATION_MULTIPROCESSORS make a machine without a
 * card, a small one or a large one. */
static size_t environment(const char *name, size_t otherwise)
{
    const char *value = getenv(name);
    return value ? static_cast<size_t>(strtoull(value, nullptr, 10)) : otherwise;
}

static size_t memory_in_use;

static size_t memory_of_card()
{
    return environment("LANCED_EMULATION_MEMORY", static_cast<size_t>(8) << 30);
}

cudaError_t cudaGetDeviceCount(int *count)
{
    *count = static_cast<int>(environment("LANCED_EMULATION_CARDS", 1));
    return *count ? cudaSuccess : fail(cudaErrorNoDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device)
{
    *properties = {};
    snprintf(properties->name, sizeof properties->name, "emulated card %d", device);
    properties->totalGlobalMem = memory_of_card();
    properties->sharedMemPerBlockOptin = 99 << 10; /* what every card from 8.0 on has */
    properties->major = 8;
    properties->minor = 6;
    properties->multiProcessorCount = static_cast<int>(environment("LANCED_EMULATION_MULTIPROCESSORS", 4));
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int)
{
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total)
{
    *total = memory_of_card();
    *available = *total > memory_in_use ? *total - memory_in_use : 0;
    return answer();
}

/* ---- streams and events ---- */
/* For a library that has the stream's head alone. */
static void enqueue(cudaStream_t stream, emulated_work work)
{
    emulated_put(stream, WORK_KERNEL, std::move(work), "a library's");
}

static bool is_recorded(cudaStream_t stream)
{
    return stream->capture != nullptr;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
    static unsigned opened;
    *stream = new emulated_stream;
    (*stream)->hurries = ++opened % 2 == 0;
    (*stream)->enqueue = enqueue;
    (*stream)->is_recorded = is_recorded;
    emulated_streams.push_back(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    if (stream->capture)
        return emulated_spoil(stream, cudaErrorStreamCaptureUnsupported);
    emulated_count_wait();
    run_until(stream, stream->put);
    return answer();
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    cudaStreamSynchronize(stream);
    emulated_streams.erase(std::find(emulated_streams.begin(), emulated_streams.end(), stream));
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize()
{
    for (cudaStream_t stream : emulated_streams)
        cudaStreamSynchronize(stream);
    return answer();
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    *event = new emulated_event;
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
    return cudaEventCreate(event);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    emulated_counts.events++;
    *event = emulated_event();
    event->stream = stream;
    event->after = stream->put;
    event->capture = stream->capture;
    event->nodes = stream->tail;
    return answer();
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    if (event->capture)
        return fail(cudaErrorCapturedEvent);
    if (event->stream)
        run_until(event->stream, event->after);
    return answer();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    cudaError_t status;
    emulated_counts.waits++;
    if (emulated_wait_in_capture(stream, event, &status))
        return status;
    const emulated_event now = *event; /* as recorded now, whatever is recorded later */
    if (now.stream && now.stream != stream)
        emulated_put(stream, WORK_WAIT, [now] { run_until(now.stream, now.after); }, "wait");
    return answer();
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t, cudaEvent_t)
{
    *ms = 1.0f; /* time has no meaning here */
    return cudaSuccess;
}

/* ---- memory ---- */

/* Each block has its size in front, and 0xff (NaN as bf16 and as float32) until it is written. In a dry run it comes
 * from the system, all 0, and takes none of the host's memory where nothing is written. */
enum { BLOCK_HEAD = 256 };

static void *new_block(size_t bytes)
{
    void *block = nullptr;
    if (emulated_is_dry()) {
        block = mmap(nullptr, BLOCK_HEAD + bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        return block == MAP_FAILED ? nullptr : block;
    }
    if (posix_memalign(&block, BLOCK_HEAD, BLOCK_HEAD + bytes))
        return nullptr;
    return memset(block, 0xff, BLOCK_HEAD + bytes);
}

static cudaError_t allocate(void **memory, size_t bytes)
{
    *memory = nullptr;
    if (health != cudaSuccess)
        return fail(health);
    void *block = memory_in_use + bytes > memory_of_card() ? nullptr : new_block(bytes);
    if (!block)
        return fail(cudaErrorMemoryAllocation);
    memory_in_use += bytes;
    memcpy(block, &bytes, sizeof bytes);
    *memory = static_cast<char *>(block) + BLOCK_HEAD;
    accesses_memory(*memory, bytes);
    return cudaSuccess;
}

static void release(void *memory)
{
    if (!memory)
        return;
    void *block = static_cast<char *>(memory) - BLOCK_HEAD;
    size_t bytes;
    memcpy(&bytes, block, sizeof bytes);
    memory_in_use -= bytes;
    accesses_memory_gone(memory);
    if (emulated_is_dry())
        munmap(block, BLOCK_HEAD + bytes);
    else
        free(block);
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t *pool, const cudaMemPoolProps *properties)
{
    *pool = new emulated_pool{properties->location.id};
    return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void *)
{
    return cudaSuccess;
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t, cudaMemPoolAttr, void *value)
{
    memset(value, 0, sizeof(uint64_t)); /* nothing is kept */
    return cudaSuccess;
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t)
{
    return cudaSuccess;
}

cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool)
{
    delete pool;
    return cudaSuccess;
}

/* A real one would be recorded, too, and the memory be the graph's own: never what the backend wants. */
cudaError_t cudaMallocFromPoolAsync(void **memory, size_t bytes, cudaMemPool_t, cudaStream_t stream)
{
    return stream->capture ? emulated_spoil(stream, cudaErrorStreamCaptureUnsupported) : allocate(memory, bytes);
}

cudaError_t cudaFreeAsync(void *memory, cudaStream_t stream)
{
    if (stream->capture)
        return emulated_spoil(stream, cudaErrorStreamCaptureUnsupported);
    emulated_put(stream, WORK_FREE, [memory] { release(memory); }, "free");
    return answer();
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    return allocate(memory, bytes);
}

cudaError_t cudaFree(void *memory)
{
    cudaDeviceSynchronize();
    release(memory);
    return answer();
}

cudaError_t cudaMallocHost(void **memory, size_t bytes)
{
    *memory = malloc(bytes);
    return *memory ? cudaSuccess : fail(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void *memory)
{
    cudaDeviceSynchronize();
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream)
{
    emulated_counts.copies++;
    emulated_counts.bytes_to_card += kind == cudaMemcpyHostToDevice ? bytes : 0;
    emulated_counts.bytes_to_host += kind == cudaMemcpyDeviceToHost ? bytes : 0;
    if (emulated_is_dry() && kind == cudaMemcpyDeviceToHost)
        emulated_fill_dry(to, bytes);
    emulated_put(stream, WORK_COPY, [=] { memmove(to, from, bytes); }, "copy");
    return answer();
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    emulated_put(stream, WORK_COPY, [=] { memset(memory, value, bytes); }, "set");
    return answer();
}

/* ---- kernels ---- */
cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int value)
{
    return value <= (99 << 10) ? cudaSuccess : fail(cudaErrorInvalidValue);
}

struct known_kernel {
    const char *name;
    std::function<emulated_work(void **)> with_arguments;
};

static std::map<const void *, known_kernel> &kernels()
{
    static std::map<const void *, known_kernel> all;
    return all;
}

void emulated_kernel(const void *kernel, const char *name, std::function<emulated_work(void **)> with_arguments)
{
    if (!kernels().count(kernel))
        kernels()[kernel] = {name, std::move(with_arguments)};
}

/* LANCED_EMULATION_FAILS=N:NAME: the card breaks at the N-th run of a kernel whose name has this in it. */
static bool breaks_the_card(const char *kernel)
{
    static unsigned long run;
    const char *wish = getenv("LANCED_EMULATION_FAILS"), *name = wish ? strchr(wish, ':') : nullptr;
    return name && strstr(kernel, name + 1) && ++run == strtoul(wish, nullptr, 10);
}

cudaError_t emulated_kernel_work(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared_bytes,
                                 emulated_work *work)
{
    if (!grid.x || !grid.y || !grid.z || !block.x || !block.y || !block.z || grid.x > 0x7fffffffu || grid.y > 65535 ||
        grid.z > 65535 || block.z > 64 || block.x * block.y * block.z > 1024 || shared_bytes > (99 << 10))
        return fail(cudaErrorInvalidConfiguration);
    const known_kernel &known = kernels().at(kernel);
    const emulated_work body = known.with_arguments(arguments);
    const char *name = known.name;
    *work = [=] {
        if (breaks_the_card(name)) {
            health = cudaErrorIllegalAddress;
            return;
        }
        unsigned long number = 0;
        accesses_launch(kernel, name, grid, block, shared_bytes);
        for (unsigned z = 0; z < grid.z; z++)
            for (unsigned y = 0; y < grid.y; y++)
                for (unsigned x = 0; x < grid.x; x++)
                    if (accesses_wanted(number++))
                        emulated_run_block(name, grid, block, uint3{x, y, z}, shared_bytes, body);
    };
    return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared_bytes,
                             cudaStream_t stream)
{
    emulated_work work;
    const cudaError_t status = emulated_kernel_work(kernel, grid, block, arguments, shared_bytes, &work);
    if (status == cudaSuccess)
        emulated_put(stream, WORK_KERNEL, std::move(work), kernels().at(kernel).name);
    return status == cudaSuccess ? answer() : status;
}
