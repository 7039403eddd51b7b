/* embed.cu: rows of the embedding table as activations, from any of the layouts of matrix.cuh.
 *
 * One thread per value: a few hundred rows at most are wanted at a time, so that nothing is gained by more. The row
 * numbers are sent first, through scratch memory. */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/matrix.cuh"
#include "kernels/cuda/operators.cuh"

enum { THREADS = 256 };

/* y[row] = w[ids[row]]; n = rows * in_features. */
__global__ void __launch_bounds__(THREADS) embed_kernel(struct matrix w, const int32_t *ids, size_t n, bf16 *y)
{
    const size_t i = static_cast<size_t>(blockIdx.x) * THREADS + threadIdx.x;
    const size_t width = static_cast<size_t>(w.in_features);
    if (i < n)
        store_act(y + i, weight_at(w, ids[i / width], static_cast<int>(i % width)));
}

static void cuda_embed(struct kernels *k, const struct linear *table, const int32_t *ids, int rows, act *y)
{
    struct cuda_state *state = cuda_of(k);
    if (rows <= 0 || !cuda_running(state))
        return;
    const size_t bytes = static_cast<size_t>(rows) * sizeof *ids;
    int32_t *sent = static_cast<int32_t *>(cuda_scratch(state, SCRATCH_INDEXES, bytes));
    if (!sent)
        return;
    cuda_send(state, sent, ids, bytes);
    const size_t n = static_cast<size_t>(rows) * static_cast<size_t>(table->matrix.in_features);
    LAUNCH(embed_kernel, cuda_pieces(n, THREADS), THREADS, 0, state, table->matrix, sent, n, values_of(y));
}

void cuda_embed_fill(struct kernels *k)
{
    k->embed = cuda_embed;
}
