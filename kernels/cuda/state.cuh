/* state.cuh: what the files of the CUDA backend share: the instance, its device memory and its failures.
 *
 * One thread at a time uses an instance. Operators enqueue their work on the stream `compute` and return; nothing of
 * them may block but transfers to and from the host. What goes wrong is noted once, in the order it happened
 * (cuda_check, cuda_fail), later operators are left undone, and the next sync reports it.
 *
 * Device memory has three kinds; weights and working memory are counted in memory_in_use:
 *   weights   cuda_weights_alloc: given back to the card at once when a matrix is closed
 *   working   memory_alloc: from a pool that keeps freed blocks for the next job and returns them when the last is
 *             freed
 *   scratch   cuda_scratch: grows to what the largest operator needed, until nothing of the other two is left
 */
#ifndef LANCE_CUDA_STATE_CUH
#define LANCE_CUDA_STATE_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#include <unordered_map>

#include "kernels/kernels.h"

typedef __nv_bfloat16 bf16; /* an activation; act_bytes is 2 */

/* Pieces of scratch memory, one for each purpose that may be needed at the same time. What an operator finds in one is
 * undefined; what it leaves there is lost at the next operator that asks for it. */
enum cuda_scratch {
    SCRATCH_WEIGHTS,  /* linear.cu alone: decoded weights, which it finds again; weights on their way from a file */
    SCRATCH_LIBRARY,  /* workspace of cuBLASLt or cuDNN */
    SCRATCH_PARTIALS, /* partial sums of a cut-up operator */
    SCRATCH_INDEXES,  /* numbers from the host: token ids, tables of segments */
    SCRATCH_KEYS,     /* attention_library.cu: keys and values in one piece */
    SCRATCH_TRANSFER, /* float32 on their way from or to the host */
    SCRATCH_COUNT
};

enum { CUDA_STAGING_PIECES = 2, CUDA_DECODED_SLOTS = 3, CUDA_PACE_EVENTS = 4, CUDA_PACE_LAUNCHES = 32 };
static const size_t CUDA_STAGING_BYTES = 8 << 20; /* of one piece of page-locked host memory */

/* What a library was found not to do though it should. */
enum cuda_refused { REFUSED_ATTENTION, REFUSED_PRODUCTS, REFUSED_KINDS };

struct cuda_state {
    struct kernels kernels; /* first, so that a struct kernels * is a struct cuda_state * */
    char name[400];
    size_t name_length;         /* without what it says of what was refused, */
    int refused[REFUSED_KINDS]; /* so many shapes */
    int device;
    int capability;          /* 10 * major + minor: 80, 86, 89, 90, 100, 120 */
    int multiprocessors;
    size_t shared_bytes_max; /* dynamic shared memory a block may have, by request */
    size_t memory_bytes;     /* of the card */

    cudaStream_t compute; /* all operators and transfers, in order */
    cudaStream_t side;    /* overlaps with `compute`, which has waited for all of it when an operator returns */
    cudaMemPool_t pool;   /* of working memory */

    std::atomic<uint64_t> in_use, peak;         /* bytes; other threads read them */
    std::unordered_map<void *, size_t> working; /* the blocks of memory_alloc */

    struct {
        void *memory;
        size_t bytes;
    } scratch[SCRATCH_COUNT];

    struct {
        char *host;         /* page-locked, CUDA_STAGING_BYTES */
        cudaEvent_t free;   /* the device no longer reads or writes it */
    } staging[CUDA_STAGING_PIECES];
    int next_staging;           /* the piece that was used longest ago */

    cudaEvent_t pace[CUDA_PACE_EVENTS]; /* after every CUDA_PACE_LAUNCHES launches, in turn; see cuda_pace */
    unsigned launches;                  /* since the last of them */
    int next_pace;

    bool graphs;                       /* repeated work is recorded (graph.cu) */
    const char *last_kernel;           /* that was asked for, to name one near a failure */
    struct cuda_recording *recording;  /* the piece that is recorded or compared right now, or NULL */

    const atomic_bool *cancelled; /* see kernels.h, watch; or NULL */
    int failure;                  /* code of the first failure since the last sync, or 0 */
    char failure_text[400];

    struct attention_library *attention_library; /* attention_library.cu's, or NULL */
    struct { /* growing.cuh */
        const char *begin, *end;
        int rows;
        int *rows_on_card;
    } growing;
    unsigned *arrived; /* last_part.cuh: [LINEAR_GROUP x multiprocessors], 0 but while a kernel runs */

    /* linear.cu's: */
    void *library; /* a matrix product of a library, or NULL */
    int some_rows; /* up to so many rows 4-bit matrices are decoded on the way to the tensor cores, past that first */
    struct {
        size_t slot_bytes;                              /* SCRATCH_WEIGHTS is CUDA_DECODED_SLOTS slots of this */
        const struct linear *matrix[CUDA_DECODED_SLOTS]; /* which matrix is decoded in each, or NULL */
        int next;
        bool ahead;                            /* they are decoded on `side`, during the products before */
        cudaEvent_t ready[CUDA_DECODED_SLOTS]; /* on `side`: decoded */
        cudaEvent_t free[CUDA_DECODED_SLOTS];  /* on `compute`: no longer read */
    } decoded;
};

static inline struct cuda_state *cuda_of(struct kernels *k)
{
    return reinterpret_cast<struct cuda_state *>(k);
}

/* The device's view of opaque activations and parameters. */
static inline bf16 *values_of(act *memory)
{
    return reinterpret_cast<bf16 *>(memory);
}
static inline const bf16 *values_of(const act *memory)
{
    return reinterpret_cast<const bf16 *>(memory);
}
static inline float *values_of(param *memory)
{
    return reinterpret_cast<float *>(memory);
}
static inline const float *values_of(const param *memory)
{
    return reinterpret_cast<const float *>(memory);
}

/* Note a failure of an operator, unless an earlier one is noted already. */
void cuda_fail(struct cuda_state *state, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* True when `status` is success; otherwise the failure is noted with what was being done. */
bool cuda_check(struct cuda_state *state, cudaError_t status, const char *what);

/* Whether operators should still be enqueued: nothing has failed and nobody cancelled. */
bool cuda_running(const struct cuda_state *state);

/* The backend's name, and so every receipt, says from now on that so many shapes were refused: results' bytes depend on
 * it, and the same name means the same bytes. */
void cuda_name_refused(struct cuda_state *state, enum cuda_refused kind, int shapes);

/* Counts launches, and waits when the card is some hundred launches (or a few graphs) behind: enough that it never runs
 * dry, few enough that a cancelled job stops soon. */
void cuda_pace(struct cuda_state *state, unsigned launches);

/* Scratch memory of at least `bytes`, 256-byte aligned, for kernels on the stream `compute`. NULL when there is none:
 * the failure is noted and the operator returns. */
void *cuda_scratch(struct cuda_state *state, enum cuda_scratch purpose, size_t bytes);

/* Memory for weights, 256-byte aligned, and its return (NULL is allowed). Errors:
 * ERROR_NO_MEMORY; `what` names them. */
int cuda_weights_alloc(struct cuda_state *state, void **out, size_t bytes, const char *what, struct error *error);
void cuda_weights_free(struct cuda_state *state, void *memory, size_t bytes);

/* Copy host memory (a mapped file, say; any alignment) to the device through page-locked memory, so that
 * reading the file and sending overlap. The source may change on return; the copy is made in its turn on
 * `compute`. A failure is noted. */
void cuda_send(struct cuda_state *state, void *device, const void *host, size_t bytes);
/* The other way, complete on return; bytes is a multiple of 4. What cannot be had is zero. */
void cuda_fetch(struct cuda_state *state, void *host, const void *device, size_t bytes);

/* Wait for everything and turn a noted failure into an error: for functions that open something. */
int cuda_finish(struct cuda_state *state, struct error *error);

/* Rows of blocks: how many pieces of `piece` cover n. */
static inline unsigned cuda_pieces(size_t n, size_t piece)
{
    return static_cast<unsigned>((n + piece - 1) / piece);
}

#endif
