/* linear.cu: matrices on the device: opening (see matrix.cuh for how they lie there) and products.
 *
 * Up to FEW_ROWS rows the weights are read once as they are (linear_few_rows.cu), 4-bit ones up to SOME_ROWS
 * (linear_some_rows.cu; state->some_rows for those who measure). More rows are a matter of arithmetic:
 * a bf16 matrix is multiplied as it is, a quantised one is decoded, a bounded slab of its rows at a time, into scratch
 * memory and multiplied from there (dequantise.cu, product.cu). The scratch memory has three slots, and a matrix that
 * is still in one is not decoded again: the MLP takes many rows in pieces, each through the same three matrices. The
 * scratch memory is taken when a matrix is opened, not in a job.
 *
 * Slabs are decoded on the stream `side`, as soon as their slot is free, while `compute` multiplies those before - of
 * the same matrix or, as operators are enqueued long before they run, of matrices before it. Two events for each slot
 * keep the order: `side` waits until the slot is no longer read, `compute` until it is decoded; the latter before the
 * operator returns, so that whatever follows on `compute` also follows what was done on `side`. */
#include "kernels/cuda/cublas.h"
#include "kernels/cuda/graph.cuh"
#include "kernels/cuda/growing.cuh"
#include "kernels/cuda/linear_parts.cuh"
#include "kernels/cuda/operators.cuh"
#include "kernels/cuda/product.cuh"
#include "kernels/formats/linear_source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

namespace {

enum {
    SLAB_BYTES = 48 << 20, /* of decoded weights; the decoder's largest matrix, 11008 x 2048, takes 45 MB */
    SLAB_PART = 64,        /* and not more than this part of the card's memory */
    SLAB_ROWS = 128,       /* slabs are multiples of these */
    PIECE_ALIGNMENT = 256,
    SOME_ROWS = 128,
};

int round_up(int n, int multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

size_t aligned(size_t bytes)
{
    return (bytes + PIECE_ALIGNMENT - 1) / PIECE_ALIGNMENT * PIECE_ALIGNMENT;
}

/* Whether a 4-bit matrix fits the tiles; one that does not (no published model has one) is kept as bf16. */
bool fits_tiles(const struct linear_source *s)
{
    if (s->format == WEIGHT_NVFP4)
        return s->group_size == NVFP4_GROUP;
    if (s->group_size != 16 && s->group_size != 32 && s->group_size % TILE_COLUMNS)
        return false;
    if (s->format == WEIGHT_AWQ_INT4)
        for (size_t i = 0, groups = (size_t)s->out_features * (size_t)(s->in_features / s->group_size); i < groups; i++)
            if (s->zeros[i] >= INT4_CODES)
                return false;
    return true;
}

enum matrix_layout layout_of(const struct linear_source *s)
{
    if (weight_is_of_bytes(s->format))
        return s->group_size % BYTES_GROUP ? MATRIX_BF16 : MATRIX_BYTES;
    if (!weight_is_four_bit(s->format) || !fits_tiles(s))
        return MATRIX_BF16;
    return s->format == WEIGHT_AWQ_INT4 ? MATRIX_AWQ : s->format == WEIGHT_MLX_INT4 ? MATRIX_MLX : MATRIX_NVFP4;
}

/* Where a matrix's parts begin in its memory. */
struct parts {
    size_t weights, scales, seconds, pairs, bias, bias_bf16, end;
};

struct parts lay_out(const struct matrix *w, bool with_bias)
{
    size_t rows = (size_t)round_up(w->out_features, TILE_ROWS), columns = (size_t)w->columns;
    const bool bytes = w->layout == MATRIX_BYTES, tiles = !bytes && w->layout != MATRIX_BF16;
    size_t pairs = tiles ? rows / 2 * (size_t)spans(*w) * (size_t)groups_per_tile(*w) : 0;
    size_t byte_pairs = bytes ? rows * (size_t)(w->in_features / w->group_size) : 0;
    struct parts p;
    p.weights = 0;
    p.scales = aligned(tiles ? rows * columns / 2 : rows * columns * (bytes ? 1 : sizeof(bf16)));
    p.seconds = p.scales + aligned(pairs * sizeof(uint32_t));
    p.pairs = p.seconds + (w->layout == MATRIX_NVFP4 ? 0 : aligned(pairs * sizeof(uint32_t)));
    p.bias = p.pairs + aligned(byte_pairs * sizeof(float2));
    p.bias_bf16 = p.bias + (with_bias ? aligned(rows * sizeof(float)) : 0);
    p.end = p.bias_bf16 + (with_bias ? aligned(rows * sizeof(bf16)) : 0);
    return p;
}

struct matrix describe(const struct linear_source *s)
{
    struct matrix w;
    memset(&w, 0, sizeof w);
    w.layout = layout_of(s);
    w.out_features = s->out_features;
    w.in_features = s->in_features;
    w.columns = round_up(s->in_features, w.layout == MATRIX_BF16 ? 32 : TILE_COLUMNS);
    w.group_size = s->group_size;
    w.tensor_scale = w.layout == MATRIX_NVFP4 ? s->tensor_scale : 1.0f;
    return w;
}

void place(struct matrix *w, const struct parts *p, char *memory)
{
    if (w->layout == MATRIX_BF16) {
        w->values = (bf16 *)(memory + p->weights);
    } else if (w->layout == MATRIX_BYTES) {
        w->codes = (uint4 *)(memory + p->weights);
        w->pairs = (float2 *)(memory + p->pairs);
    } else {
        w->codes = (uint4 *)(memory + p->weights);
        w->scales = (uint32_t *)(memory + p->scales);
        w->seconds = w->layout == MATRIX_NVFP4 ? NULL : (uint32_t *)(memory + p->seconds);
    }
    if (p->end > p->bias) {
        w->bias = (float *)(memory + p->bias);
        w->bias_bf16 = (bf16 *)(memory + p->bias_bf16);
    }
}

size_t slab_bytes(const struct cuda_state *state)
{
    size_t part = state->memory_bytes / SLAB_PART;
    return part < SLAB_BYTES ? part : (size_t)SLAB_BYTES;
}

/* Rows decoded at a time for a product of many rows. */
int slab_rows(const struct cuda_state *state, const struct matrix *w)
{
    int most = (int)(slab_bytes(state) / ((size_t)w->columns * sizeof(bf16))) / SLAB_ROWS * SLAB_ROWS;
    int all = round_up(w->out_features, TILE_ROWS);
    return most < SLAB_ROWS ? (all < SLAB_ROWS ? all : SLAB_ROWS) : most < all ? most : all;
}

/* One array of the file: so many bytes for each row of the matrix. */
struct array {
    const void *data;
    size_t row_bytes;
};

bf16 *decoded_slot(struct cuda_state *state, int slot)
{
    const void *before = state->scratch[SCRATCH_WEIGHTS].memory;
    char *memory = (char *)cuda_scratch(state, SCRATCH_WEIGHTS, CUDA_DECODED_SLOTS * state->decoded.slot_bytes);
    if (memory != before)
        cuda_linear_forget(state); /* `side` may use it when `compute` has come to where it was taken */
    return memory ? (bf16 *)(memory + (size_t)slot * state->decoded.slot_bytes) : NULL;
}

/* An event between the two streams; nothing where there is one stream, or nothing is enqueued. */
void record_event(struct cuda_state *state, cudaEvent_t event, cudaStream_t stream)
{
    if (state->decoded.ahead && !cuda_graph_compares(state))
        cuda_check(state, cudaEventRecord(event, stream), "decoding weights");
}

void wait_for_event(struct cuda_state *state, cudaStream_t stream, cudaEvent_t event)
{
    if (state->decoded.ahead && !cuda_graph_compares(state))
        cuda_check(state, cudaStreamWaitEvent(stream, event, 0), "decoding weights");
}

/* Decode rows first .. first + rows - 1 of a matrix into a slot, in time for what comes next on `compute`. */
void decode_into(struct cuda_state *state, int slot, const struct matrix *w, int first, int rows, bf16 *to)
{
    cudaStream_t stream = state->decoded.ahead ? state->side : state->compute;
    wait_for_event(state, stream, state->decoded.free[slot]);
    dequantise(state, stream, w, first, rows, to);
    record_event(state, state->decoded.ready[slot], stream);
    wait_for_event(state, state->compute, state->decoded.ready[slot]);
}

/* What was enqueued on `compute` so far is the last that reads the slot as it is. */
void release_slot(struct cuda_state *state, int slot)
{
    record_event(state, state->decoded.free[slot], state->compute);
}

/* The slot that has rows first .. first + rows - 1 of a matrix as bf16, until release_slot; `whole` when these are all.
 * Negative after a failure. */
int decode(struct cuda_state *state, const struct linear *linear, int first, int rows, bool whole)
{
    for (int slot = 0; whole && slot < CUDA_DECODED_SLOTS; slot++)
        if (state->decoded.matrix[slot] == linear)
            return slot;
    int slot = state->decoded.next;
    bf16 *to = decoded_slot(state, slot);
    if (!to)
        return -1;
    state->decoded.next = (slot + 1) % CUDA_DECODED_SLOTS;
    state->decoded.matrix[slot] = NULL;
    decode_into(state, slot, &linear->matrix, first, rows, to);
    if (whole && cuda_running(state)) /* or it may have been left undone */
        state->decoded.matrix[slot] = linear;
    return slot;
}

/* Send the matrix row by row, as many at a time as the scratch memory takes, and pack them there. */
void send_and_pack(struct cuda_state *state, const struct linear_source *s, const struct matrix *w)
{
    const struct linear_row_bytes bytes = linear_row_bytes(s);
    const struct array arrays[] = {{s->data, bytes.data},
                                   {s->scales, bytes.scales},
                                   {s->scales_fp8, bytes.scales_fp8},
                                   {s->zeros, bytes.zeros},
                                   {s->offsets, bytes.offsets}};
    enum { ARRAYS = sizeof arrays / sizeof *arrays };
    size_t row_bytes = 0;
    for (const struct array &array : arrays)
        row_bytes += array.row_bytes;
    size_t at_once = slab_bytes(state) / row_bytes / TILE_ROWS * TILE_ROWS;
    int all = s->out_features, piece = at_once < TILE_ROWS ? TILE_ROWS : at_once < (size_t)all ? (int)at_once : all;
    char *scratch = (char *)cuda_scratch(state, SCRATCH_WEIGHTS, (size_t)piece * row_bytes + ARRAYS * PIECE_ALIGNMENT);
    for (int first = 0; scratch && first < all && cuda_running(state); first += piece) {
        int rows = all - first < piece ? all - first : piece;
        char *at[ARRAYS], *end = scratch;
        for (int i = 0; i < ARRAYS; i++) {
            at[i] = arrays[i].row_bytes ? end : NULL;
            if (!at[i])
                continue;
            size_t bytes = (size_t)rows * arrays[i].row_bytes;
            cuda_send(state, end, (const char *)arrays[i].data + (size_t)first * arrays[i].row_bytes, bytes);
            end += aligned(bytes);
        }
        struct raw_rows raw;
        memset(&raw, 0, sizeof raw);
        raw.format = s->format;
        raw.has_byte_codes = weight_is_of_bytes(s->format);
        raw.first = first;
        raw.rows = rows;
        raw.in_features = s->in_features;
        raw.group_size = s->group_size;
        raw.data = (const uint8_t *)at[0];
        raw.scales = (const bf16 *)at[1];
        raw.scales_fp8 = (const uint8_t *)at[2];
        raw.zeros = (const uint8_t *)at[3];
        raw.offsets = (const bf16 *)at[4];
        raw.tensor_scale = s->tensor_scale;
        pack_rows(state, &raw, w);
    }
}

/* The bias in both forms. False when the host has no memory. */
bool send_bias(struct cuda_state *state, const struct linear_source *s, const struct matrix *w)
{
    size_t n = (size_t)s->out_features;
    float *wide = (float *)malloc(n * sizeof *wide);
    bf16 *narrow = (bf16 *)malloc(n * sizeof *narrow);
    for (size_t i = 0; wide && narrow && i < n; i++) {
        if (s->bias_format == WEIGHT_F32) {
            memcpy(&wide[i], (const char *)s->bias + i * sizeof(float), sizeof(float));
        } else {
            bf16 value;
            memcpy(&value, (const char *)s->bias + i * sizeof value, sizeof value);
            wide[i] = __bfloat162float(value);
        }
        narrow[i] = __float2bfloat16_rn(wide[i]);
    }
    bool made = wide && narrow;
    if (made) {
        cuda_send(state, w->bias, wide, n * sizeof *wide);
        cuda_send(state, w->bias_bf16, narrow, n * sizeof *narrow);
    }
    free(wide);
    free(narrow);
    return made;
}

int fill(struct cuda_state *state, const struct linear_source *s, const struct linear *linear, struct error *error)
{
    cuda_check(state, cudaMemsetAsync(linear->memory, 0, linear->bytes, state->compute), "clearing a matrix");
    if (linear->matrix.bias && !send_bias(state, s, &linear->matrix))
        return error_set(error, ERROR_NO_MEMORY, "no memory for a bias of %d values", s->out_features);
    send_and_pack(state, s, &linear->matrix);
    const struct matrix *w = &linear->matrix;
    size_t slot =
        w->layout == MATRIX_BF16 ? 0 : aligned((size_t)slab_rows(state, w) * (size_t)w->columns * sizeof(bf16));
    if (slot > state->decoded.slot_bytes)
        state->decoded.slot_bytes = slot;
    cuda_linear_forget(state); /* the file's weights went through there */
    if (slot)
        decoded_slot(state, 0);
    if (state->library)
        cuda_scratch(state, SCRATCH_LIBRARY, CUBLAS_WORKSPACE_BYTES);
    return cuda_finish(state, error);
}

void close_linear(struct kernels *k, struct linear *linear)
{
    if (!linear)
        return;
    struct cuda_state *state = cuda_of(k);
    cuda_linear_forget(state); /* another matrix may come to have this one's address */
    cuda_check(state, cudaStreamSynchronize(state->compute), "closing a matrix");
    cuda_weights_free(state, linear->memory, linear->bytes);
    free(linear);
}

int open_linear(struct kernels *k, struct linear **out, const struct linear_source *source, struct error *error)
{
    struct cuda_state *state = cuda_of(k);
    *out = NULL;
    int code = linear_source_check(source, error);
    if (code)
        return code;
    struct linear *linear = (struct linear *)calloc(1, sizeof *linear);
    if (!linear)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a matrix");
    linear->matrix = describe(source);
    struct parts parts = lay_out(&linear->matrix, source->bias != NULL);
    if ((code = cuda_weights_alloc(state, &linear->memory, parts.end, "a matrix", error)) < 0) {
        free(linear);
        return code;
    }
    linear->bytes = parts.end;
    place(&linear->matrix, &parts, (char *)linear->memory);
    if ((code = fill(state, source, linear, error)) < 0) {
        close_linear(k, linear);
        return code;
    }
    *out = linear;
    return 0;
}

/* More rows than linear_few_rows takes: columns first .. first + columns - 1 of y. */
void multiply(struct cuda_state *state, const struct matrix *w, const bf16 *weights, int first, int columns,
              const bf16 *x, int rows, bf16 *y, bool add)
{
    struct product product = {};
    product.left = x;
    product.left_stride = w->in_features;
    product.right = weights;
    product.right_stride = w->columns;
    product.rows = rows;
    product.columns = columns;
    product.depth = w->in_features;
    product.bias = w->bias ? w->bias + first : NULL;
    product.bias_bf16 = w->bias ? w->bias_bf16 + first : NULL;
    product.out = y + first;
    product.out_stride = w->out_features;
    product.add = add;
    product_run(state, &product);
}

/* What stands before the products of few rows, and behind. */
struct beside {
    const float *norm_weight;
    float norm_eps;
    bool swiglu;
};

void run_few_rows(struct cuda_state *state, const struct linear *const *linears, int count, const act *x, int rows,
                  act *const *y, bool add, const struct beside &beside)
{
    struct few_rows_group group;
    memset(&group, 0, sizeof group); /* its padding, too: graphs compare arguments as bytes */
    group.count = count;
    group.swiglu = beside.swiglu;
    group.norm_weight = beside.norm_weight;
    group.norm_eps = beside.norm_eps;
    for (int i = 0; i < count; i++) {
        group.part[i].w = linears[i]->matrix;
        group.part[i].y = y[i] ? values_of(y[i]) : NULL;
        group.part[i].grown = cuda_growing(state, &group.part[i].y, linears[i]->matrix.out_features);
    }
    linear_few_rows(state, &group, values_of(x), rows, add);
}

/* Whether 4-bit codes go straight to the tensor cores. */
bool takes_some_rows(const struct cuda_state *state, const struct matrix *w, const act *x, int rows)
{
    return rows > FEW_ROWS && rows <= state->some_rows && some_rows_fits(w, values_of(x));
}

void run_some_rows(struct cuda_state *state, const struct linear *const *linears, int count, const act *x, int rows,
                   act *const *y, bool add)
{
    struct some_rows_part parts[LINEAR_GROUP];
    memset(parts, 0, sizeof parts);
    for (int i = 0; i < count; i++) {
        parts[i].w = linears[i]->matrix;
        parts[i].y = values_of(y[i]);
    }
    linear_some_rows(state, parts, count, values_of(x), rows, add);
}

void run_linear(struct kernels *k, const struct linear *linear, const act *x, int rows, act *y, bool add)
{
    struct cuda_state *state = cuda_of(k);
    const struct matrix *w = &linear->matrix;
    if (rows <= 0 || !cuda_running(state))
        return;
    if (rows <= FEW_ROWS) {
        run_few_rows(state, &linear, 1, x, rows, &y, add, {});
        return;
    }
    if (takes_some_rows(state, w, x, rows)) {
        run_some_rows(state, &linear, 1, x, rows, &y, add);
        return;
    }
    if (w->layout == MATRIX_BF16) {
        multiply(state, w, w->values, 0, w->out_features, values_of(x), rows, values_of(y), add);
        return;
    }
    int slab = slab_rows(state, w);
    for (int first = 0; first < w->out_features; first += slab) {
        int columns = w->out_features - first < slab ? w->out_features - first : slab;
        int slot = decode(state, linear, first, columns, slab >= w->out_features);
        if (slot < 0)
            return;
        multiply(state, w, decoded_slot(state, slot), first, columns, values_of(x), rows, values_of(y), add);
        release_slot(state, slot);
    }
}

bool are_alike(const struct linear *const *linears, int count)
{
    const struct matrix *first = &linears[0]->matrix;
    for (int i = 1; i < count; i++) {
        const struct matrix *w = &linears[i]->matrix;
        if (w->layout != first->layout || w->in_features != first->in_features || w->group_size != first->group_size)
            return false;
    }
    return true;
}

/* Where the normed rows are, or x where the products are to norm it themselves: then `beside` says so. */
const act *normed(struct kernels *k, const struct linear *const *linears, const struct normed_rows *x, bool alike,
                  struct beside *beside)
{
    const struct matrix *w = &linears[0]->matrix;
    const float *weight = values_of(x->weight);
    if (!weight)
        return x->x;
    if (alike && x->rows <= FEW_ROWS && few_rows_norm_fits(w, values_of(x->x), weight, x->rows)) {
        beside->norm_weight = weight;
        beside->norm_eps = x->eps;
        return x->x;
    }
    k->rms_norm(k, x->x, x->rows, w->in_features, x->weight, x->eps, x->h);
    return x->h;
}

void run_linear_group(struct kernels *k, const struct linear *const *linears, int count, const struct normed_rows *x,
                      act *const *y)
{
    struct cuda_state *state = cuda_of(k);
    struct beside beside = {};
    if (x->rows <= 0 || !cuda_running(state))
        return;
    const bool alike = are_alike(linears, count);
    const act *rows = normed(k, linears, x, alike, &beside);
    if (x->rows <= FEW_ROWS && alike) {
        run_few_rows(state, linears, count, rows, x->rows, y, false, beside);
        return;
    }
    if (alike && takes_some_rows(state, &linears[0]->matrix, rows, x->rows)) {
        run_some_rows(state, linears, count, rows, x->rows, y, false);
        return;
    }
    for (int i = 0; i < count; i++)
        run_linear(k, linears[i], rows, x->rows, y[i], false);
}

void run_linear_swiglu(struct kernels *k, const struct linear *gate, const struct linear *up,
                       const struct normed_rows *x, act *out, act *spare)
{
    struct cuda_state *state = cuda_of(k);
    const struct linear *const both[] = {gate, up};
    struct beside beside = {};
    if (x->rows <= 0 || !cuda_running(state))
        return;
    if (x->rows <= FEW_ROWS && are_alike(both, 2) && few_rows_swiglu_fits(&gate->matrix)) {
        beside.swiglu = true;
        const act *rows = normed(k, both, x, true, &beside);
        act *const made[] = {out, NULL};
        run_few_rows(state, both, 2, rows, x->rows, made, false, beside);
        return;
    }
    act *const made[] = {out, spare};
    run_linear_group(k, both, 2, x, made);
    k->swiglu(k, out, spare, (size_t)x->rows * (size_t)gate->matrix.out_features, out);
}

} // namespace

void cuda_linear_forget(struct cuda_state *state)
{
    state->decoded.next = 0;
    for (int slot = 0; slot < CUDA_DECODED_SLOTS; slot++) {
        state->decoded.matrix[slot] = NULL;
        release_slot(state, slot);
    }
}

void cuda_linear_fill(struct kernels *k)
{
    struct cuda_state *state = cuda_of(k);
    k->linear_open = open_linear;
    k->linear_close = close_linear;
    k->linear = run_linear;
    k->linear_group = run_linear_group;
    k->linear_swiglu = run_linear_swiglu;
    for (int slot = 0; slot < CUDA_DECODED_SLOTS; slot++) {
        cuda_check(state, cudaEventCreateWithFlags(&state->decoded.ready[slot], cudaEventDisableTiming),
                   "opening an event");
        cuda_check(state, cudaEventCreateWithFlags(&state->decoded.free[slot], cudaEventDisableTiming),
                   "opening an event");
    }
    const char *wish = getenv("LANCED_CUDA_OVERLAP"); /* "off": to see what it brings */
    state->decoded.ahead = !wish || strcmp(wish, "off") != 0;
    wish = getenv("LANCED_CUDA_SOME_ROWS"); /* to see from which number of rows decoding first is faster */
    state->some_rows = wish ? atoi(wish) : SOME_ROWS;
    if (state->some_rows != SOME_ROWS) { /* other sums: other bytes */
        const size_t length = strlen(state->name);
        snprintf(state->name + length, sizeof state->name - length, ", decoding past %d rows", state->some_rows);
    }
#ifdef CUDA_EMULATION /* which has no card that a real library could use */
    if (!getenv("LANCED_CUBLASLT"))
        return;
#endif
    state->library = cublas_open();
}

void cuda_linear_end(struct kernels *k)
{
    struct cuda_state *state = cuda_of(k);
    cublas_close((struct cublas *)state->library);
    state->library = NULL;
    for (int slot = 0; slot < CUDA_DECODED_SLOTS; slot++) {
        if (state->decoded.ready[slot])
            cudaEventDestroy(state->decoded.ready[slot]);
        if (state->decoded.free[slot])
            cudaEventDestroy(state->decoded.free[slot]);
    }
}
