/* cudnn.h: fused attention through NVIDIA's cuDNN 9, a library that need not be there: it is looked for and opened at
 * run time, as library.h says. LANCED_CUDNN names the library's file instead of the search, or, when it is empty, none.
 *
 * One plan for each shape: made when a shape is first met, kept until many others were met since. */
#ifndef LANCE_CUDA_CUDNN_H
#define LANCE_CUDA_CUDNN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct cudnn;
struct cudnn_plan;

/* NULL when there is no usable library. The current device is the one that will be used. */
struct cudnn *cudnn_open(void);
void cudnn_close(struct cudnn *cudnn); /* NULL is allowed */

/* softmax(q k^T scale) v as in kernels.h, without a mask, keys and values each in one piece. All pointers are
 * the device's, values are bf16, strides count elements. All begin at multiples of 16 bytes; head_dim and
 * strides are multiples of 8. The shape of a plan has room for `most_keys` rows of keys and values, of which
 * those that are not there are zero. */
struct cudnn_attention {
    const void *q, *k, *v;
    void *out;
    const int *row_count, *key_count; /* how many queries (q_rows) and keys are there */
    int q_rows, most_keys, heads, kv_heads, head_dim;
    int q_stride, kv_stride, out_stride;
    float scale;
};

/* The plan for this shape; NULL when none was made yet. */
struct cudnn_plan *cudnn_plan_find(struct cudnn *cudnn, const struct cudnn_attention *attention);

/* Make it, once it was not found; NULL when the library had no memory for it. Takes the host up to seconds and enqueues
 * nothing, but may take the place of the plan that was not used for longest: nothing of it may be under way. */
struct cudnn_plan *cudnn_plan_make(struct cudnn *cudnn, const struct cudnn_attention *attention);

bool cudnn_plan_possible(const struct cudnn_plan *plan);    /* false: the library cannot do it, or it was refused */
size_t cudnn_plan_workspace(const struct cudnn_plan *plan); /* bytes that cudnn_run needs */
uint64_t cudnn_plan_number(const struct cudnn_plan *plan);  /* no other plan of this instance has it */

/* Whether the plan's results were compared and found right, which whoever compares notes here. */
bool cudnn_plan_proven(const struct cudnn_plan *plan);
void cudnn_plan_prove(struct cudnn_plan *plan);

/* The plan is not to be used again. How many were refused, since the library was opened. */
void cudnn_refuse(struct cudnn *cudnn, struct cudnn_plan *plan, const char *why);
int cudnn_refused(const struct cudnn *cudnn);

/* Whether the last failure was a want of memory, which is no reason to refuse a plan. Told once. */
bool cudnn_starved(struct cudnn *cudnn);

/* Enqueue on `stream` (a cudaStream_t). NULL, or why the library failed: nothing useful was enqueued. */
const char *cudnn_run(struct cudnn *cudnn, struct cudnn_plan *plan, const struct cudnn_attention *attention,
                      void *workspace, void *stream);

/* What was refused since the last call, for the log; an empty string when there is nothing. */
const char *cudnn_complaint(struct cudnn *cudnn);

#ifdef __cplusplus
}
#endif

#endif
