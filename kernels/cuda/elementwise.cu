/* elementwise.cu: activation functions and sums, at memory speed; any of them may work in place.
 *
 * A thread takes eight neighbouring values with one load when all addresses allow it, else one value. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.cuh"

enum { THREADS = 256, WIDE = 8 };

/* What is done to x, with the value `other` of a second operand (the one in y for add). */
struct silu_of {
    static __device__ float run(float x, float)
    {
        return silu(x);
    }
};
struct swiglu_of {
    static __device__ float run(float gate, float up)
    {
        return silu(gate) * up;
    }
};
struct gelu_of {
    static __device__ float run(float x, float)
    {
        return 0.5f * x * erfcf(-0.70710678118654752f * x); /* erfc: 1 + erf cancels below zero */
    }
};
struct sum_of {
    static __device__ float run(float x, float y)
    {
        return x + y;
    }
};

/* y[i] = run(x[i], other[i]); n counts elements, or groups of eight when `wide`. `other` NULL: not read. Pointers are
 * not __restrict__: y may be x or other. */
template <typename Operation, bool wide>
__global__ void __launch_bounds__(THREADS) each_kernel(const bf16 *x, const bf16 *other, size_t n, bf16 *y)
{
    const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i >= n)
        return;
    if (wide) {
        float a[WIDE], b[WIDE] = {};
        load_act8(x + i * WIDE, a);
        if (other)
            load_act8(other + i * WIDE, b);
#pragma unroll
        for (int j = 0; j < WIDE; j++)
            a[j] = Operation::run(a[j], b[j]);
        store_act8(y + i * WIDE, a);
    } else {
        store_act(y + i, Operation::run(load_act(x + i), other ? load_act(other + i) : 0.0f));
    }
}

template <typename Operation>
static void each(struct kernels *k, const act *x_memory, const act *other_memory, size_t n, act *y_memory)
{
    struct cuda_state *state = cuda_of(k);
    const bf16 *x = values_of(x_memory), *other = values_of(other_memory);
    bf16 *y = values_of(y_memory);
    size_t done = 0;
    if (act_aligned(act_address(x) | act_address(other) | act_address(y))) {
        const size_t groups = n / WIDE;
        LAUNCH((each_kernel<Operation, true>), cuda_pieces(groups, THREADS), THREADS, 0, state, x, other, groups, y);
        done = groups * WIDE;
    }
    const bf16 *rest = other ? other + done : NULL;
    LAUNCH((each_kernel<Operation, false>), cuda_pieces(n - done, THREADS), THREADS, 0, state, x + done, rest, n - done,
           y + done);
}

static void cuda_swiglu(struct kernels *k, const act *gate, const act *up, size_t n, act *out)
{
    each<swiglu_of>(k, gate, up, n, out);
}

static void cuda_silu(struct kernels *k, const act *x, size_t n, act *y)
{
    each<silu_of>(k, x, NULL, n, y);
}

static void cuda_gelu(struct kernels *k, const act *x, size_t n, act *y)
{
    each<gelu_of>(k, x, NULL, n, y);
}

static void cuda_add(struct kernels *k, const act *x, size_t n, act *y)
{
    each<sum_of>(k, x, y, n, y);
}

/* y[row, column] += x[column]; `width` counts elements, or groups of eight when `wide`. `x` may be row 0 of y only when
 * it is the only row. */
template <bool wide>
__global__ void __launch_bounds__(THREADS) add_row_kernel(const bf16 *x, int width, bf16 *y)
{
    const int column = static_cast<int>(blockIdx.y) * THREADS + static_cast<int>(threadIdx.x);
    if (column >= width)
        return;
    const size_t at = static_cast<size_t>(blockIdx.x) * static_cast<size_t>(width) + static_cast<size_t>(column);
    if (wide) {
        float a[WIDE], b[WIDE];
        load_act8(y + at * WIDE, a);
        load_act8(x + column * WIDE, b);
#pragma unroll
        for (int j = 0; j < WIDE; j++)
            a[j] += b[j];
        store_act8(y + at * WIDE, a);
    } else {
        store_act(y + at, load_act(y + at) + load_act(x + column));
    }
}

static void cuda_add_row(struct kernels *k, const act *x, int rows, int width, act *y)
{
    if (rows <= 0 || width <= 0)
        return;
    const bf16 *row = values_of(x);
    bf16 *to = values_of(y);
    const bool wide = width % WIDE == 0 && act_aligned(act_address(row) | act_address(to));
    const int units = wide ? width / WIDE : width;
    const dim3 blocks(static_cast<unsigned>(rows), cuda_pieces(static_cast<size_t>(units), THREADS));
    if (wide)
        LAUNCH(add_row_kernel<true>, blocks, THREADS, 0, cuda_of(k), row, units, to);
    else
        LAUNCH(add_row_kernel<false>, blocks, THREADS, 0, cuda_of(k), row, units, to);
}

void cuda_elementwise_fill(struct kernels *k)
{
    k->swiglu = cuda_swiglu;
    k->silu = cuda_silu;
    k->gelu = cuda_gelu;
    k->add = cuda_add;
    k->add_row = cuda_add_row;
}
