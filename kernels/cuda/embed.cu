#include "kernels/cuda/act.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/linear.cuh"
#include "kernels/cuda/operators.cuh"
enum { THREADS = 256 };
__global__ void __launch_bounds__(THREADS) embed_kernel(struct matrix w, const int32_t *ids, size_t n, bf16 *y)
{
    const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
    if (i < n)
        store_act(y + i, weight_at(w, ids[i / w.in_features], (int)(i % w.in_features)));
}
static void cuda_embed(struct kernels *k, const struct linear *table, const int32_t *ids, int rows, act *y)
{
    struct cuda_state *state = cuda_of(k);
    if (rows <= 0) return;
    int32_t *d = (int32_t *)cuda_scratch(state, SCRATCH_INDEXES, rows * sizeof(int32_t));
    if (!d) return;
    cuda_send(state, d, ids, rows * sizeof(int32_t));
    size_t n = (size_t)rows * table->matrix.in_features;
    LAUNCH(embed_kernel, cuda_pieces(n, THREADS), THREADS, 0, state, table->matrix, d, n, values_of(y));
}
void cuda_embed_fill(struct kernels *k) { k->embed = cuda_embed; }
