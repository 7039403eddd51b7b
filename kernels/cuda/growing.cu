/* growing.cu: telling the card how many rows memory has that grows; see growing.cuh. */
#include "kernels/cuda/growing.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/operators.cuh"

/* An argument is what a copy would have to fetch from page-locked memory. */
__global__ void note_rows_kernel(int *rows_on_card, int rows)
{
    *rows_on_card = rows;
}

static void cuda_graph_grows(struct kernels *k, const void *memory, size_t bytes, int rows)
{
    struct cuda_state *state = cuda_of(k);
    state->growing.begin = static_cast<const char *>(memory);
    state->growing.end = state->growing.begin + bytes;
    state->growing.rows = rows;
    if (memory)
        LAUNCH(note_rows_kernel, 1, 1, 0, state, state->growing.rows_on_card, rows);
}

void cuda_growing_fill(struct kernels *k)
{
    k->graph_grows = cuda_graph_grows;
}
