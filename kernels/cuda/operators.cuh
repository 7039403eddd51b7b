/* operators.cuh: the operators by file; each function fills its pointers of struct kernels. */
#ifndef LANCE_CUDA_OPERATORS_CUH
#define LANCE_CUDA_OPERATORS_CUH

#include "kernels/kernels.h"

struct cuda_state;

void cuda_memory_fill(struct kernels *k);      /* cuda.cu: memory, transfers, copies, sync */
void cuda_memory_end(struct kernels *k);       /* gives back the scratch memory */
void cuda_elementwise_fill(struct kernels *k); /* elementwise.cu: swiglu, silu, gelu, add, add_row */
void cuda_embed_fill(struct kernels *k);       /* embed.cu */
void cuda_guided_step_fill(struct kernels *k); /* guided_step.cu */
void cuda_largest_fill(struct kernels *k);     /* largest.cu */
void cuda_norm_fill(struct kernels *k);        /* norm.cu: rms_norm, channel_norm */
void cuda_rope_fill(struct kernels *k);        /* rope.cu: head_norm_rope */
void cuda_conv_fill(struct kernels *k);        /* conv.cu */
void cuda_resample_fill(struct kernels *k);    /* resample.cu: duplicate_up, average_down, split_frames, patches */
void cuda_linear_fill(struct kernels *k);      /* linear.cu: linear_* */
void cuda_linear_end(struct kernels *k);       /* gives back what cuda_linear_fill opened */
/* What is decoded counts no longer; the scratch memory is free for `side` when `compute` has come here.
 * Wherever something else has used that memory, and at both ends of work that is recorded or played again:
 * events do not reach across those. */
void cuda_linear_forget(struct cuda_state *state);
void cuda_attention_fill(struct kernels *k);   /* attention.cu */
void cuda_attention_end(struct kernels *k);    /* gives back the library that cuda_attention_fill opened */
void cuda_graph_fill(struct kernels *k);       /* graph.cu: graph_run, graph_close */
void cuda_growing_fill(struct kernels *k);     /* growing.cu: graph_grows */

#endif
