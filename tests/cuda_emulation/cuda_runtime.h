/* cuda_runtime.h: the part of CUDA that lanced's kernels use, on the CPU, for tests.
 *
 * The .cu files of kernels/cuda are compiled by a plain C++17 compiler with this folder in front of the include path
 * and CUDA_EMULATION defined. Every kernel then runs with its real index arithmetic: threads are fibers that switch at
 * barriers and warp functions (threads.cpp); streams hold what was put on them until somebody waits (runtime.cpp);
 * device memory is the host's own heap, so that the address sanitizer sees every step out of bounds. Speed, and what
 * depends on the memory model of a real card, it cannot show.
 */
#ifndef LANCE_EMULATED_CUDA_RUNTIME_H
#define LANCE_EMULATED_CUDA_RUNTIME_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <functional>
#include <tuple>

/* ---- the language ---- */
#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __constant__ static
#define __shared__ static /* of all blocks: they run one after another */
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__
#define __restrict__ __restrict

#define EMULATED_VECTOR2(name, type, bytes) \
    struct alignas(bytes) name { type x, y; }; \
    static inline name make_##name(type x, type y) { return name{x, y}; }
#define EMULATED_VECTOR4(name, type, bytes) \
    struct alignas(bytes) name { type x, y, z, w; }; \
    static inline name make_##name(type x, type y, type z, type w) { return name{x, y, z, w}; }
EMULATED_VECTOR2(float2, float, 8)
EMULATED_VECTOR2(int2, int, 8)
EMULATED_VECTOR2(uint2, unsigned, 8)
EMULATED_VECTOR2(double2, double, 16)
EMULATED_VECTOR4(float4, float, 16)
EMULATED_VECTOR4(int4, int, 16)
EMULATED_VECTOR4(uint4, unsigned, 16)
EMULATED_VECTOR4(uchar4, unsigned char, 4)
struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
enum { warpSize = 32 };

/* ---- barriers and warp functions ---- */
void __syncthreads();
int __syncthreads_count(int predicate);
int __syncthreads_or(int predicate);
int __syncthreads_and(int predicate);
void __syncwarp(unsigned lanes = 0xffffffffu);
static inline void __threadfence() {}
static inline unsigned atomicAdd(unsigned *to, unsigned value) /* no thread is interrupted */
{
    const unsigned before = *to;
    *to += value;
    return before;
}
static inline void __threadfence_block() {}

/* Show `bytes` to the lanes of a mask and see theirs: lane i's are at result + i * EMULATED_EXCHANGE_BYTES, until the
 * next call. Lanes outside the mask, or ended, show nothing: what stands there is of no meaning. */
enum { EMULATED_EXCHANGE_BYTES = 64 };
const unsigned char *emulated_exchange(unsigned lanes, const void *mine, size_t bytes);
unsigned emulated_lane();

template <typename T> T emulated_shuffle(unsigned lanes, T value, unsigned from)
{
    T result;
    memcpy(&result, emulated_exchange(lanes, &value, sizeof value) + from * EMULATED_EXCHANGE_BYTES, sizeof result);
    return result;
}
template <typename T> T __shfl_sync(unsigned lanes, T value, int from, int width = 32)
{
    const unsigned first = emulated_lane() & ~static_cast<unsigned>(width - 1);
    return emulated_shuffle(lanes, value, first + (static_cast<unsigned>(from) & static_cast<unsigned>(width - 1)));
}
template <typename T> T __shfl_xor_sync(unsigned lanes, T value, int distance, int width = 32)
{
    const unsigned lane = emulated_lane(), from = lane ^ static_cast<unsigned>(distance);
    const unsigned end = (lane & ~static_cast<unsigned>(width - 1)) + static_cast<unsigned>(width);
    return emulated_shuffle(lanes, value, from < end ? from : lane);
}
template <typename T> T __shfl_down_sync(unsigned lanes, T value, unsigned distance, int width = 32)
{
    const unsigned lane = emulated_lane(),
                   end = (lane & ~static_cast<unsigned>(width - 1)) + static_cast<unsigned>(width);
    return emulated_shuffle(lanes, value, lane + distance < end ? lane + distance : lane);
}
template <typename T> T __shfl_up_sync(unsigned lanes, T value, unsigned distance, int width = 32)
{
    const unsigned lane = emulated_lane(), first = lane & ~static_cast<unsigned>(width - 1);
    return emulated_shuffle(lanes, value, lane >= first + distance ? lane - distance : lane);
}
unsigned __ballot_sync(unsigned lanes, int predicate);
int __any_sync(unsigned lanes, int predicate);
int __all_sync(unsigned lanes, int predicate);

/* ---- arithmetic ---- */
using std::max;
using std::min;
template <typename To, typename From> To emulated_bits(From value)
{
    static_assert(sizeof(To) == sizeof(From), "the same size");
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}
static inline unsigned __float_as_uint(float x) { return emulated_bits<unsigned>(x); }
static inline float __uint_as_float(unsigned x) { return emulated_bits<float>(x); }
static inline int __float_as_int(float x) { return emulated_bits<int>(x); }
static inline float __int_as_float(int x) { return emulated_bits<float>(x); }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
#define __expf expf /* the C library has these names for itself */
#define __logf logf
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline float __saturatef(float x) { return x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __clz(int x) { return x ? __builtin_clz(static_cast<unsigned>(x)) : 32; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline unsigned __umulhi(unsigned x, unsigned y)
{
    return static_cast<unsigned>((static_cast<uint64_t>(x) * y) >> 32);
}
unsigned __byte_perm(unsigned x, unsigned y, unsigned selector);
template <typename T> T __ldg(const T *from) { return *from; }
template <typename T> T __ldcs(const T *from) { return *from; }
template <typename T> T __ldcg(const T *from) { return *from; }
template <typename T> void __stcs(T *to, T value) { *to = value; }

/* ---- what launch.cuh and mma.cuh need ---- */
typedef struct emulated_stream *cudaStream_t;
struct emulated_stream_head { /* how a stream begins: for a library that is to put work on it (cudnn/) */
    void (*enqueue)(cudaStream_t stream, std::function<void()> work);
    bool (*is_recorded)(cudaStream_t stream);
};
void *emulated_dynamic_shared();

/* A kernel is started by its address alone, its arguments behind pointers, as the runtime's functions have
 * it: what it takes must be known first. An argument is copied when the kernel is launched or a graph's
 * node is set, like CUDA does. */
typedef std::function<void()> emulated_work;
void emulated_kernel(const void *kernel, const char *name, std::function<emulated_work(void **)> with_arguments);
template <typename... Parameters, size_t... Number>
emulated_work emulated_call(void (*kernel)(Parameters...), void **arguments, std::index_sequence<Number...>)
{
    std::tuple<Parameters...> values(*static_cast<Parameters *>(arguments[Number])...);
    return [=] { std::apply(kernel, values); };
}
template <typename... Parameters> void emulated_kernel(const char *name, void (*kernel)(Parameters...))
{
    emulated_kernel(reinterpret_cast<const void *>(kernel), name, [kernel](void **arguments) {
        return emulated_call(kernel, arguments, std::index_sequence_for<Parameters...>());
    });
}
void emulated_copy_async(void *to, const void *from, size_t bytes, bool valid);
void emulated_copy_async_commit();
void emulated_copy_async_wait(unsigned pending);

/* ---- the runtime's functions ---- */
#define CUDART_VERSION 13000
enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorECCUncorrectable = 214,
    cudaErrorNvlinkUncorrectable = 220,
    cudaErrorContained = 226,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchTimeout = 702,
    cudaErrorContextIsDestroyed = 709,
    cudaErrorAssert = 710,
    cudaErrorHardwareStackError = 714,
    cudaErrorIllegalInstruction = 715,
    cudaErrorMisalignedAddress = 716,
    cudaErrorInvalidAddressSpace = 717,
    cudaErrorInvalidPc = 718,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorStreamCaptureUnjoined = 904,
    cudaErrorStreamCaptureIsolation = 905,
    cudaErrorCapturedEvent = 907,
    cudaErrorExternalDevice = 911,
    cudaErrorUnknown = 999,
};
const char *cudaGetErrorString(cudaError_t status);
cudaError_t cudaGetLastError();

struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlockOptin;
    int major, minor, multiProcessorCount;
};
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *properties, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaMemGetInfo(size_t *available, size_t *total);

typedef struct emulated_event *cudaEvent_t;
typedef struct emulated_pool *cudaMemPool_t;
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaEventCreate(cudaEvent_t *event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream);
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to);

enum cudaMemAllocationType { cudaMemAllocationTypePinned = 1 };
enum cudaMemLocationType { cudaMemLocationTypeDevice = 1 };
struct cudaMemLocation {
    cudaMemLocationType type;
    int id;
};
struct cudaMemPoolProps {
    cudaMemAllocationType allocType;
    cudaMemLocation location;
};
enum cudaMemPoolAttr {
    cudaMemPoolAttrReleaseThreshold = 4,
    cudaMemPoolAttrReservedMemCurrent = 5,
    cudaMemPoolAttrUsedMemCurrent = 7,
};
cudaError_t cudaMemPoolCreate(cudaMemPool_t *pool, const cudaMemPoolProps *properties);
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void *value);
cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, cudaMemPoolAttr attribute, void *value);
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t pool, size_t bytes_to_keep);
cudaError_t cudaMemPoolDestroy(cudaMemPool_t pool);
cudaError_t cudaMallocFromPoolAsync(void **memory, size_t bytes, cudaMemPool_t pool, cudaStream_t stream);
cudaError_t cudaFreeAsync(void *memory, cudaStream_t stream);
cudaError_t cudaMalloc(void **memory, size_t bytes);
template <typename T> cudaError_t cudaMalloc(T **memory, size_t bytes)
{
    return cudaMalloc(reinterpret_cast<void **>(memory), bytes);
}
cudaError_t cudaFree(void *memory);
cudaError_t cudaMallocHost(void **memory, size_t bytes);
cudaError_t cudaFreeHost(void *memory);

enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream);

cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **arguments, size_t shared_bytes,
                             cudaStream_t stream);

typedef struct emulated_graph *cudaGraph_t;
typedef struct emulated_executable *cudaGraphExec_t;
typedef struct emulated_node *cudaGraphNode_t;
enum cudaStreamCaptureMode { cudaStreamCaptureModeRelaxed = 2 };
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone, cudaStreamCaptureStatusActive,
    cudaStreamCaptureStatusInvalidated };
struct cudaGraphEdgeData {
    unsigned char from_port, to_port, type;
};
struct cudaKernelNodeParams {
    void *func;
    dim3 gridDim, blockDim;
    unsigned sharedMemBytes;
    void **kernelParams, **extra;
};
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus *status, unsigned long long *number,
                                     cudaGraph_t *graph, const cudaGraphNode_t **after, const cudaGraphEdgeData **edges,
                                     size_t *count);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphExecKernelNodeSetParams(cudaGraphExec_t executable, cudaGraphNode_t node,
                                             const cudaKernelNodeParams *parameters);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value);

#endif
