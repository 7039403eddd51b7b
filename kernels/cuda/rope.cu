/* rope.cu: RMS norm per head and rotary positions, in one pass over queries and keys, in place.
 *
 * A warp takes one head of one row: the values of a lane in the first half of the head and those they are
 * rotated with in the second. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/growing.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.cuh"
#include "kernels/cuda/warp.cuh"

#include <string.h>

enum { WARPS = 8, THREADS = WARPS * WARP };

/* One or two neighbouring values at a time. */
template <bool paired> __device__ inline float2 load_some(const bf16 *from)
{
    return paired ? load_act2(from) : make_float2(load_act(from), 0.0f);
}

template <bool paired> __device__ inline void store_some(bf16 *to, float first, float second)
{
    if (paired)
        store_act2(to, first, second);
    else
        store_act(to, first);
}

/* The parts of a launch; a unit is a head of a row. */
struct head_work {
    int count, half;
    float eps;
    struct {
        bf16 *values;
        const int *grown; /* growing.cuh */
        const float *weight, *cosines, *sines;
        size_t stride;
        unsigned heads, first_unit, end_unit;
    } part[HEAD_PARTS];
};

/* `paired`: half is even, and so is every element's distance from an address that is a multiple of 4. */
template <bool paired>
__global__ void __launch_bounds__(THREADS) head_norm_rope_kernel(const __grid_constant__ struct head_work work)
{
    enum { TAKEN = paired ? 2 : 1 };
    const unsigned unit = blockIdx.x * WARPS + threadIdx.x / WARP; /* 32 bits divide in a fraction of what 64 take */
    int part = 0;
    while (part + 1 < work.count && unit >= work.part[part].end_unit)
        part++;
    if (unit >= work.part[part].end_unit)
        return;
    const unsigned heads = work.part[part].heads, within = unit - work.part[part].first_unit;
    const size_t row = within / heads, head = within % heads, stride = work.part[part].stride;
    const int half = work.half;
    const float *weight = work.part[part].weight, *cosines = work.part[part].cosines, *sines = work.part[part].sines;
    const size_t first_row = static_cast<size_t>(rows_grown(work.part[part].grown));
    bf16 *x = work.part[part].values + (first_row + row) * stride + head * 2 * static_cast<size_t>(half);
    const float *cosine = cosines + row * static_cast<size_t>(half), *sine = sines + row * static_cast<size_t>(half);
    const int first = static_cast<int>(threadIdx.x % WARP) * TAKEN;
    float factor = 1.0f;
    if (weight) {
        float sum = 0.0f;
        for (int i = first; i < half; i += WARP * TAKEN) {
            const float2 a = load_some<paired>(x + i), b = load_some<paired>(x + half + i);
            sum += a.x * a.x + a.y * a.y + b.x * b.x + b.y * b.y;
        }
        factor = 1.0f / sqrtf(warp_sum(sum) / static_cast<float>(2 * half) + work.eps);
    }
    for (int i = first; i < half; i += WARP * TAKEN) {
        const float2 a = load_some<paired>(x + i), b = load_some<paired>(x + half + i);
        const float left[2] = {a.x, a.y}, right[2] = {b.x, b.y};
        float to_left[2] = {}, to_right[2] = {};
#pragma unroll
        for (int j = 0; j < TAKEN; j++) {
            const float p = left[j] * factor * (weight ? weight[i + j] : 1.0f);
            const float q = right[j] * factor * (weight ? weight[half + i + j] : 1.0f);
            to_left[j] = p * cosine[i + j] - q * sine[i + j];
            to_right[j] = q * cosine[i + j] + p * sine[i + j];
        }
        store_some<paired>(x + i, to_left[0], to_left[1]);
        store_some<paired>(x + half + i, to_right[0], to_right[1]);
    }
}

static void cuda_head_norm_rope(struct kernels *k, const struct head_part *parts, int count, int head_dim, float eps)
{
    struct head_work work;
    memset(&work, 0, sizeof work); /* its padding, too: graphs compare arguments as bytes */
    work.half = head_dim / 2;
    work.eps = eps;
    unsigned units = 0;
    bool paired = work.half % 2 == 0;
    for (const struct head_part *p = parts; p < parts + count; p++) {
        if (p->rows <= 0 || p->heads <= 0 || work.half <= 0)
            continue;
        auto &part = work.part[work.count++];
        part.values = values_of(p->x);
        part.weight = values_of(p->weight);
        part.cosines = values_of(p->cosines);
        part.sines = values_of(p->sines);
        part.stride = static_cast<size_t>(p->stride);
        part.heads = static_cast<unsigned>(p->heads);
        part.first_unit = units;
        part.end_unit = units += static_cast<unsigned>(p->rows) * part.heads;
        paired = paired && p->stride % 2 == 0 && act_address(part.values) % 4 == 0;
        part.grown = cuda_growing(cuda_of(k), &part.values, p->stride);
    }
    const unsigned blocks = cuda_pieces(units, WARPS);
    if (paired)
        LAUNCH(head_norm_rope_kernel<true>, blocks, THREADS, 0, cuda_of(k), work);
    else
        LAUNCH(head_norm_rope_kernel<false>, blocks, THREADS, 0, cuda_of(k), work);
}

void cuda_rope_fill(struct kernels *k)
{
    k->head_norm_rope = cuda_head_norm_rope;
}
