/* attention.cu: softmax(q k^T) v on tensor cores for heads of up to 128 dimensions, without ever holding the scores.
 *
 * The online softmax of Milakov and Gimelshein 2018, in blocks as in FlashAttention-2 (Dao 2023): a block of threads
 * owns some rows and walks over the keys 64 at a time; a warp keeps scores, weights and sums of its rows in registers.
 * Keys and values have one buffer each: the next keys arrive while the values are multiplied, and the other way round.
 *
 * Where there are few rows (text decoding) the keys are cut into parts for several blocks; the one that ends last joins
 * what all came to, in a fixed order. How a problem is cut depends on its shape and the card alone.
 *
 * Problems of many rows go to cuDNN where it is there (attention_library.cu). */
#include "kernels/cuda/attention_parts.cuh"
#include "kernels/cuda/last_part.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/mma.cuh"
#include "kernels/cuda/operators.cuh"
#include "kernels/cuda/warp.cuh"

#include <math.h>
#include <string.h>

namespace {

enum {
    KEYS = 64,           /* of a step */
    PROBLEMS = 8,        /* of a launch: they fit the 4 KB of a kernel's arguments */
    SPLITS_MAX = 64,
    SPLIT_STEPS = 2,     /* at least, of a part of the keys */
    JOINED_ROWS = 8,      /* that a warp joins at once, so that their loads are under way together */
    BLOCK_ROWS_MAX = 128,
    GROWING_ROWS = 16,    /* of the blocks that may count their keys on the card: text decoding's */
    NO_END = 1 << 30,
    WIDEST = 128,         /* head_dim */
};

struct batch {
    int count, splits;
    int rows;             /* of all blocks together, the unused ones of the last block of a problem too */
    float *partial;       /* [splits][rows][DIM], NULL when splits is 1 */
    float *statistics;    /* [splits][rows][2]: maximum and sum */
    unsigned *arrived;    /* [blocks across], 0 between launches: parts of the keys that are done */
    struct attention_problem problem[PROBLEMS];
};
static_assert(sizeof(struct batch) <= 4096, "the arguments of a kernel");

__device__ inline int problem_of(const struct batch &b, int block)
{
    int number = 0;
    while (number + 1 < b.count && b.problem[number + 1].first_block <= block)
        number++;
    return number;
}

/* Copy `rows` rows of head_dim elements to shared memory [.., DIM + 8], zeros past the end of either. source(row) is
 * where a row begins; it is asked for growing rows. */
template <int DIM, int THREADS, bool ALIGNED, typename Source>
__device__ inline void load_rows(bf16 *shared, int capacity, int rows, int head_dim, const bf16 *anywhere,
                                 Source source)
{
    constexpr int vector = ALIGNED ? 8 : 1, pieces = DIM / vector;
    for (int i = (int)threadIdx.x; i < capacity * pieces; i += THREADS) {
        int row = i / pieces, column = i % pieces * vector;
        bool valid = row < rows && column < head_dim;
        const bf16 *from = valid ? source(row) + column : anywhere;
        bf16 *to = shared + row * (DIM + 8) + column;
        if (ALIGNED)
            copy_async_16(to, from, valid);
        else
            *to = valid ? *from : __float2bfloat16_rn(0.0f);
    }
}

/* The same for the keys of a step that lie in one segment, as nearly all do: one address of each kind, moved on by as
 * many rows as the block copies at once. first: where the first of them begins. */
template <int DIM, int THREADS>
__device__ __forceinline__ void load_whole_step(bf16 *shared, const bf16 *first, int stride)
{
    constexpr int pieces = DIM / 8, rows_at_once = THREADS / pieces;
    int row = (int)threadIdx.x / pieces, column = (int)threadIdx.x % pieces * 8;
    const bf16 *from = first + (size_t)row * (size_t)stride + column;
    bf16 *to = shared + row * (DIM + 8) + column;
#pragma unroll
    for (int i = 0; i < KEYS / rows_at_once; i++) {
        copy_async_16(to + i * rows_at_once * (DIM + 8), from, true);
        from += (size_t)rows_at_once * (size_t)stride;
    }
}

/* The rows of a problem that a block owns, all of one key head, and the steps of KEYS keys that it takes. */
struct share {
    int kv_head, first_row, rows;
    int step, end;
    struct key_counts there;
};

/* Start copying the keys of a step, or their values; `at` is at its first key or before. */
template <int DIM, int THREADS, bool ALIGNED>
__device__ __forceinline__ void load_step(bf16 *to, const struct attention_problem &p, struct key_cursor at,
                                          const struct share &mine, int step, bool values_wanted)
{
    int first_key = step * KEYS, segment_end = at.first_key + p.segment[at.segment].rows;
    if (ALIGNED && THREADS % (DIM / 8) == 0 && p.head_dim == DIM && first_key + KEYS <= segment_end &&
        first_key + KEYS <= mine.there.keys)
        load_whole_step<DIM, THREADS>(to, place_of_key(p, &at, mine.kv_head, first_key, values_wanted),
                                      p.segment[at.segment].stride);
    else
        load_rows<DIM, THREADS, ALIGNED>(to, KEYS, mine.there.keys - first_key, p.head_dim, p.q, [&](int row) {
            return place_of_key(p, &at, mine.kv_head, first_key + row, values_wanted);
        });
    copy_async_commit();
}

__device__ __forceinline__ struct share share_of_block(const struct batch &b, const struct attention_problem &p,
                                                       int block_rows)
{
    int more = block_rows == GROWING_ROWS ? rows_grown(p.grown) : 0;
    struct share mine;
    mine.there = {p.keys + more, p.causal_from + more};
    int block = (int)blockIdx.x - p.first_block;
    mine.kv_head = block / p.row_blocks;
    mine.first_row = block % p.row_blocks * block_rows;
    mine.rows = p.rows - mine.first_row < block_rows ? p.rows - mine.first_row : block_rows;
    int steps = (visible_keys(p, mine.there, mine.first_row + mine.rows - 1) + KEYS - 1) / KEYS;
    mine.step = (int)((long long)steps * (int)blockIdx.y / b.splits);
    mine.end = (int)((long long)steps * ((int)blockIdx.y + 1) / b.splits);
    return mine;
}

/* How many keys the row of a block sees; rows past the end see what the last one sees. */
__device__ __forceinline__ int seen_by_row(const struct attention_problem &p, const struct share &mine, int row)
{
    return visible_keys(p, mine.there, mine.first_row + (row < mine.rows ? row : mine.rows - 1));
}

/* A warp has PIECES times 16 rows. What one lane holds of its state: of every piece the rows g and g + 8 of a sum
 * (mma.cuh). */
template <int DIM, int PIECES> struct softmax_state {
    float sum[PIECES][DIM / 8][4]; /* of weighted values */
    float maximum[PIECES][2];      /* of the scores so far, not yet scaled */
    float total[PIECES][2];        /* of the weights, in this lane's columns */
};

template <int DIM, int PIECES> __device__ __forceinline__ void begin(struct softmax_state<DIM, PIECES> &state)
{
    state = {};
#pragma unroll
    for (int i = 0; i < PIECES; i++)
        state.maximum[i][0] = state.maximum[i][1] = -INFINITY;
}

/* score += queries keys^T, for the warp's rows from warp_row of the block on. */
template <int DIM, int PIECES>
__device__ __forceinline__ void add_scores(float (&score)[PIECES][KEYS / 8][4], const bf16 *queries, int warp_row,
                                           const bf16 *keys)
{
    constexpr int STRIDE = DIM + 8;
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < DIM; k += 16) {
        uint32_t a[PIECES][4];
#pragma unroll
        for (int i = 0; i < PIECES; i++)
            load_matrices(a[i], queries + (warp_row + 16 * i + lane % 16) * STRIDE + k + lane / 16 * 8);
#pragma unroll
        for (int j = 0; j < KEYS / 8; j += 2) {
            uint32_t two[4];
            load_matrices(two, keys + (8 * j + lane % 8 + lane / 16 * 8) * STRIDE + k + lane / 8 % 2 * 8);
            const uint32_t b[2][2] = {{two[0], two[1]}, {two[2], two[3]}};
#pragma unroll
            for (int i = 0; i < PIECES; i++) {
                mma_16x8x16(score[i][j], a[i], b[0]);
                mma_16x8x16(score[i][j + 1], a[i], b[1]);
            }
        }
    }
}

/* Scores of keys that a row does not see become -infinity: those of the warp's rows from warp_row of the block on. */
template <int PIECES>
__device__ __forceinline__ void hide_unseen(float (&score)[PIECES][KEYS / 8][4], const struct attention_problem &p,
                                            const struct share &mine, int warp_row, int first_key)
{
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < PIECES; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int seen = seen_by_row(p, mine, warp_row + 16 * i + 8 * half + lane / 4);
#pragma unroll
            for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
                for (int e = 0; e < 2; e++)
                    if (first_key + 8 * j + lane % 4 * 2 + e >= seen)
                        score[i][j][2 * half + e] = -INFINITY;
        }
}

/* The softmax's step for one row of a piece: its weights, and its sums scaled to the new maximum. */
template <int DIM>
__device__ __forceinline__ void weigh_row(const float (&score)[KEYS / 8][4], int half, float scale_log2, float &maximum,
                                          float &total, float (&sum)[DIM / 8][4], uint32_t (&weight)[KEYS / 16][4])
{
    float top = maximum;
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++)
        top = fmaxf(top, fmaxf(score[j][2 * half], score[j][2 * half + 1]));
    top = max_of_four(top);
    /* Products rounded by themselves, never fused with the difference: the same maximum gives a factor of exactly 1,
     * step after step. No key seen yet: every weight is 0. */
    float reference = top == -INFINITY ? 0.0f : __fmul_rn(top, scale_log2);
    float factor = exp2_fast(__fmul_rn(maximum, scale_log2) - reference);
    maximum = top;
    total *= factor;
#pragma unroll
    for (int d = 0; d < DIM / 8; d++) {
        sum[d][2 * half] *= factor;
        sum[d][2 * half + 1] *= factor;
    }
#pragma unroll
    for (int j = 0; j < KEYS / 8; j++) {
        float first = exp2_fast(fmaf(score[j][2 * half], scale_log2, -reference));
        float second = exp2_fast(fmaf(score[j][2 * half + 1], scale_log2, -reference));
        total += first;
        total += second;
        weight[j / 2][half + j % 2 * 2] = pack_act2(first, second);
    }
}

/* The same for all rows of a warp. */
template <int DIM, int PIECES>
__device__ __forceinline__ void weigh(const float (&score)[PIECES][KEYS / 8][4], float scale_log2,
                                      struct softmax_state<DIM, PIECES> &state,
                                      uint32_t (&weight)[PIECES][KEYS / 16][4])
{
#pragma unroll
    for (int i = 0; i < PIECES; i++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            weigh_row<DIM>(score[i], half, scale_log2, state.maximum[i][half], state.total[i][half], state.sum[i],
                           weight[i]);
}

/* sum += weights values; the weights are the left fragments. */
template <int DIM, int PIECES>
__device__ __forceinline__ void add_values(float (&sum)[PIECES][DIM / 8][4],
                                           const uint32_t (&weight)[PIECES][KEYS / 16][4], const bf16 *values)
{
    constexpr int STRIDE = DIM + 8;
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < KEYS; k += 16) {
#pragma unroll
        for (int d = 0; d < DIM / 8; d += 2) {
            uint32_t two[4];
            load_matrices_transposed(two, values + (k + lane % 16) * STRIDE + 8 * d + lane / 16 * 8);
            const uint32_t b[2][2] = {{two[0], two[1]}, {two[2], two[3]}};
#pragma unroll
            for (int i = 0; i < PIECES; i++) {
                mma_16x8x16(sum[i][d], weight[i][k / 16], b[0]);
                mma_16x8x16(sum[i][d + 1], weight[i][k / 16], b[1]);
            }
        }
    }
}

/* What one row came to over a part of the keys, for join_rows: number `at` among the rows of all parts. */
template <int DIM>
__device__ __forceinline__ void store_partial(const struct batch &b, size_t at, float scaled_maximum, float total,
                                              const float (&sum)[DIM / 8][4], int half)
{
    int lane = (int)threadIdx.x % 32;
    if (lane % 4 == 0) {
        b.statistics[2 * at] = scaled_maximum;
        b.statistics[2 * at + 1] = total;
    }
#pragma unroll
    for (int d = 0; d < DIM / 8; d++)
        *(float2 *)(b.partial + at * DIM + 8 * d + lane % 4 * 2) = make_float2(sum[d][2 * half], sum[d][2 * half + 1]);
}

/* One row of the result. */
template <int DIM, bool ALIGNED>
__device__ __forceinline__ void store_row(bf16 *out, int head_dim, float total, const float (&sum)[DIM / 8][4],
                                          int half)
{
    int lane = (int)threadIdx.x % 32;
    float factor = total > 0.0f ? 1.0f / total : 0.0f;
#pragma unroll
    for (int d = 0; d < DIM / 8; d++) {
        int column = 8 * d + lane % 4 * 2;
        float v0 = sum[d][2 * half] * factor, v1 = sum[d][2 * half + 1] * factor;
        if (ALIGNED) {
            if (column < head_dim)
                store_act2(out + column, v0, v1);
            continue;
        }
        if (column < head_dim)
            store_act(out + column, v0);
        if (column + 1 < head_dim)
            store_act(out + column + 1, v1);
    }
}

/* All rows of a warp, from warp_row of the block on, go where they belong. */
template <int DIM, int PIECES, bool ALIGNED>
__device__ __forceinline__ void store_rows(const struct batch &b, const struct attention_problem &p,
                                           const struct share &mine, int block_rows, int warp_row,
                                           const struct softmax_state<DIM, PIECES> &state)
{
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < PIECES; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = sum_of_four(state.total[i][half]);
            int row = warp_row + 16 * i + 8 * half + lane / 4;
            if (row >= mine.rows)
                continue;
            if (b.partial) {
                size_t at = (size_t)blockIdx.y * (size_t)b.rows + (size_t)blockIdx.x * block_rows + (size_t)row;
                store_partial<DIM>(b, at, __fmul_rn(state.maximum[i][half], p.scale_log2), total, state.sum[i], half);
                continue;
            }
            bf16 *out = p.out + place_of_row(p, mine.kv_head, mine.first_row + row, p.out_stride);
            store_row<DIM, ALIGNED>(out, p.head_dim, total, state.sum[i], half);
        }
}

static_assert(SPLITS_MAX <= 2 * WARP, "a warp's lanes hold the statistics of two parts each");

/* What the parts of the keys came to for a row: the factor that each is scaled with (0: it saw no key) and its sum of
 * weights. Lane l has those of the parts l and l + 32. */
struct row_parts {
    float factor[2], weights[2];

    __device__ inline void load(const struct batch &b, size_t number)
    {
        int lane = (int)threadIdx.x % WARP;
        float maximum[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            size_t at = (size_t)(lane + WARP * i) * (size_t)b.rows + number;
            bool has = lane + WARP * i < b.splits;
            maximum[i] = has ? __ldcg(b.statistics + 2 * at) : -INFINITY;
            weights[i] = has ? __ldcg(b.statistics + 2 * at + 1) : 0.0f;
        }
        float top = warp_max(fmaxf(maximum[0], maximum[1]));
#pragma unroll
        for (int i = 0; i < 2; i++)
            factor[i] = weights[i] > 0.0f ? exp2_fast(maximum[i] - top) : 0.0f;
    }
};

/* Joins what the parts came to, in their order, for the rows first .. first + JOINED_ROWS - 1 of the block as far as
 * there are such: a lane takes four columns. */
template <int DIM, bool ALIGNED>
__device__ __forceinline__ void join_rows(const struct batch &b, const struct attention_problem &p,
                                          const struct share &mine, int block_rows, int first)
{
    int lane = (int)threadIdx.x % WARP, column = 4 * lane, rows = mine.rows - first;
    size_t number = (size_t)blockIdx.x * (size_t)block_rows + (size_t)first;
    struct row_parts parts[JOINED_ROWS];
    float value[JOINED_ROWS][4] = {}, total[JOINED_ROWS] = {};
#pragma unroll
    for (int r = 0; r < JOINED_ROWS; r++)
        parts[r].load(b, number + (size_t)(r < rows ? r : 0));
    const float *partial = b.partial + number * DIM + column;
    for (int s = 0; s < b.splits; s++) {
#pragma unroll
        for (int r = 0; r < JOINED_ROWS; r++) {
            float factor = __shfl_sync(ALL_LANES, s < WARP ? parts[r].factor[0] : parts[r].factor[1], s % WARP);
            total[r] += factor * __shfl_sync(ALL_LANES, s < WARP ? parts[r].weights[0] : parts[r].weights[1], s % WARP);
            if (r >= rows || column >= DIM)
                continue;
            float4 four = __ldcg((const float4 *)(partial + r * DIM));
            value[r][0] = fmaf(factor, four.x, value[r][0]);
            value[r][1] = fmaf(factor, four.y, value[r][1]);
            value[r][2] = fmaf(factor, four.z, value[r][2]);
            value[r][3] = fmaf(factor, four.w, value[r][3]);
        }
        partial += (size_t)b.rows * DIM;
    }
#pragma unroll
    for (int r = 0; r < JOINED_ROWS; r++) {
        if (r >= rows)
            break;
        bf16 *out = p.out + place_of_row(p, mine.kv_head, mine.first_row + first + r, p.out_stride);
        float of_row[4];
#pragma unroll
        for (int i = 0; i < 4; i++)
            of_row[i] = total[r] > 0.0f ? value[r][i] / total[r] : 0.0f;
        if (ALIGNED && column < p.head_dim) {
            store_act2(out + column, of_row[0], of_row[1]);
            store_act2(out + column + 2, of_row[2], of_row[3]);
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (!ALIGNED && column + i < p.head_dim)
                store_act(out + column + i, of_row[i]);
    }
}

/* The same for all rows of the block. */
template <int DIM, int WARPS, bool ALIGNED>
__device__ __forceinline__ void join_parts(const struct batch &b, const struct attention_problem &p,
                                           const struct share &mine, int block_rows)
{
    for (int first = (int)threadIdx.x / WARP * JOINED_ROWS; first < mine.rows; first += WARPS * JOINED_ROWS)
        join_rows<DIM, ALIGNED>(b, p, mine, block_rows, first);
}

/* Steps from some step on whose keys lie in one segment and are all seen: how many, and where the values of the first
 * begin and the keys of the second. */
struct run {
    int steps;
    const bf16 *values, *next_keys;
    int stride;
};

/* `at` is at the first step's first key or before. */
template <int DIM>
__device__ __forceinline__ struct run run_of_steps(const struct attention_problem &p, struct key_cursor at,
                                                   const struct share &mine, int step, int warp_sees)
{
    struct run run;
    run.values = place_of_key(p, &at, mine.kv_head, step * KEYS, true);
    int end = at.first_key + p.segment[at.segment].rows, to_end = mine.end - step;
    run.stride = p.segment[at.segment].stride;
    run.steps = ((end < warp_sees ? end : warp_sees) - step * KEYS) / KEYS;
    run.steps = p.head_dim != DIM ? 0 : run.steps < to_end ? run.steps : to_end;
    run.next_keys = run.steps > 1 ? place_of_key(p, &at, mine.kv_head, (step + 1) * KEYS, false) : run.values;
    return run;
}

/* Start copying the keys of a step of a run, or their values, and move on to the next. */
template <int DIM, int THREADS>
__device__ __forceinline__ void send_for_whole_step(bf16 *to, const bf16 **first, int stride)
{
    load_whole_step<DIM, THREADS>(to, *first, stride);
    copy_async_commit();
    *first += (size_t)KEYS * (size_t)stride;
}

/* ALIGNED: all rows begin at multiples of 16 bytes and head_dim is a multiple of 8. */
template <int DIM, int WARPS, int PIECES, bool ALIGNED>
__global__ void __launch_bounds__(WARPS * 32) attention_kernel(const __grid_constant__ struct batch batch)
{
    constexpr int ROWS = WARPS * PIECES * 16, THREADS = WARPS * 32, STRIDE = DIM + 8;
    /* Text decoding waits for this kernel's instructions: runs of alike steps have a loop of their own. */
    constexpr bool FAST_RUNS = ALIGNED && WARPS == 1 && THREADS % (DIM / 8) == 0;
    DYNAMIC_SHARED(bf16, shared);
    bf16 *queries = shared, *keys = queries + ROWS * STRIDE, *values = keys + KEYS * STRIDE;
    const struct attention_problem &p = batch.problem[problem_of(batch, (int)blockIdx.x)];
    const struct share mine = share_of_block(batch, p, ROWS);
    int warp_row = (int)threadIdx.x / 32 * PIECES * 16;

    struct key_cursor cursor = {0, 0}; /* at the step's first key or before */
    auto load_values = [&](int step) { load_step<DIM, THREADS, ALIGNED>(values, p, cursor, mine, step, true); };
    struct softmax_state<DIM, PIECES> state;
    begin(state);
    int warp_sees = seen_by_row(p, mine, warp_row); /* all rows of the warp see at least that */

    load_rows<DIM, THREADS, ALIGNED>(queries, ROWS, mine.rows, p.head_dim, p.q, [&](int row) {
        return p.q + place_of_row(p, mine.kv_head, mine.first_row + row, p.q_stride);
    });
    auto load_next_keys = [&](int step) {
        if (step >= mine.end)
            return;
        advance(p, &cursor, step * KEYS);
        load_step<DIM, THREADS, ALIGNED>(keys, p, cursor, mine, step, false);
    };
    load_next_keys(mine.step);
    /* One step, whose keys are on their way: its values and the next keys are sent for when their room is free. */
    auto take = [&](int step, bool all_seen, auto send_for_values, auto send_for_next_keys) {
        copy_async_wait<0>();
        __syncthreads(); /* keys (and queries) are there, and the last step's values are no longer read */
        send_for_values();

        float score[PIECES][KEYS / 8][4] = {};
        add_scores<DIM>(score, queries, warp_row, keys);
        if (!all_seen && (step + 1) * KEYS > warp_sees)
            hide_unseen(score, p, mine, warp_row, step * KEYS);
        uint32_t weight[PIECES][KEYS / 16][4];
        weigh(score, p.scale_log2, state, weight);

        copy_async_wait<0>();
        __syncthreads(); /* values are there, and the keys are no longer read */
        send_for_next_keys();
        add_values<DIM>(state.sum, weight, values);
    };
    for (int step = mine.step; step < mine.end; step++) {
        if (FAST_RUNS)
            for (struct run run = run_of_steps<DIM>(p, cursor, mine, step, warp_sees); run.steps > 1;
                 run.steps--, step++)
                take(step, true, [&] { send_for_whole_step<DIM, THREADS>(values, &run.values, run.stride); },
                     [&] { send_for_whole_step<DIM, THREADS>(keys, &run.next_keys, run.stride); });
        take(step, false, [&] { load_values(step); }, [&] { load_next_keys(step + 1); });
    }
    copy_async_commit(); /* nothing may be under way at the end: the queries, when there was no step */
    copy_async_wait<0>();
    store_rows<DIM, PIECES, ALIGNED>(batch, p, mine, ROWS, warp_row, state);
    if (batch.partial && is_last_part(&batch.arrived[blockIdx.x], batch.splits))
        join_parts<DIM, WARPS, ALIGNED>(batch, p, mine, ROWS);
}

/* ---- choosing a kernel ---- */

/* How a problem is taken; problems that are alike share a launch. */
struct shape {
    int dim;        /* head_dim rounded up to what there is a kernel for; not aligned: WIDEST */
    int block_rows; /* GROWING_ROWS, 64 or 128 */
    bool aligned;
};

template <int DIM, int WARPS, int PIECES, bool ALIGNED> void launch(struct cuda_state *state, const struct batch &b)
{
    constexpr int rows = WARPS * PIECES * 16;
    constexpr size_t shared_bytes = (size_t)(rows + 2 * KEYS) * (DIM + 8) * sizeof(bf16);
    LAUNCH((attention_kernel<DIM, WARPS, PIECES, ALIGNED>), dim3((unsigned)(b.rows / rows), (unsigned)b.splits),
           dim3(WARPS * 32), shared_bytes, state, b);
}

/* Rows that are not aligned, which no real model has, share one kernel for all head_dim: columns of zeros change no
 * sum. */
template <int DIM> void launch_dim(struct cuda_state *state, const struct shape &shape, const struct batch &b)
{
    if (!shape.aligned)
        launch<WIDEST, 4, 1, false>(state, b);
    else if (shape.block_rows == GROWING_ROWS)
        launch<DIM, 1, 1, true>(state, b);
    else if (shape.block_rows == 64)
        launch<DIM, 4, 1, true>(state, b);
    else
        launch<DIM, 4, 2, true>(state, b);
}

/* Parts to cut the keys into, so that a launch of few blocks fills the card: one more for every 128 keys. */
int choose_splits(const struct cuda_state *state, int most_keys, int blocks)
{
    int wanted = state->multiprocessors / blocks, most = most_keys / KEYS / SPLIT_STEPS;
    int splits = wanted < most ? wanted : most;
    return splits < 1 ? 1 : splits > SPLITS_MAX ? SPLITS_MAX : splits;
}

void flush(struct cuda_state *state, const struct shape &shape, struct batch *b, int most_keys, int blocks)
{
    if (!b->count)
        return;
    b->rows = blocks * shape.block_rows;
    b->splits = choose_splits(state, most_keys, blocks);
    b->partial = b->statistics = NULL;
    b->arrived = NULL;
    if (b->splits > 1) {
        size_t rows = (size_t)b->splits * (size_t)b->rows;
        b->partial = (float *)cuda_scratch(state, SCRATCH_PARTIALS, rows * (size_t)(shape.dim + 2) * sizeof(float));
        if (!b->partial) {
            b->count = 0; /* the caller goes on filling */
            return;
        }
        b->statistics = b->partial + rows * (size_t)shape.dim;
        b->arrived = state->arrived;
    }
    switch (shape.dim) {
    case 32:
        launch_dim<32>(state, shape, *b);
        break;
    case 64:
        launch_dim<64>(state, shape, *b);
        break;
    case 80:
        launch_dim<80>(state, shape, *b);
        break;
    default:
        launch_dim<WIDEST>(state, shape, *b);
    }
    b->count = 0;
}

struct attention_problem convert(const struct attention *a)
{
    struct attention_problem p;
    memset(&p, 0, sizeof p);
    p.q = values_of(a->q);
    p.out = values_of(a->out);
    p.q_stride = a->q_stride;
    p.out_stride = a->out_stride;
    p.group = a->heads / a->kv_heads;
    p.rows = a->q_rows * p.group;
    p.kv_heads = a->kv_heads;
    p.head_dim = a->head_dim;
    p.scale_log2 = a->scale * 1.44269504088896341f;
    for (int s = 0; s < a->segments; s++) {
        if (a->segment[s].rows <= 0)
            continue;
        p.segment[p.segments].keys = values_of(a->segment[s].keys);
        p.segment[p.segments].values = values_of(a->segment[s].values);
        p.segment[p.segments].rows = a->segment[s].rows;
        p.segment[p.segments].stride = a->segment[s].stride;
        p.keys += a->segment[s].rows;
        p.segments++;
    }
    p.causal_from = a->causal ? p.keys - a->q_rows + 1 : p.keys;
    return p;
}

bool is_aligned(const struct attention_problem *p)
{
    uintptr_t bits = act_address(p->q) | act_address(p->out) |
                     (uintptr_t)(p->q_stride | p->out_stride | p->head_dim) * sizeof(bf16);
    for (int s = 0; s < p->segments; s++)
        bits |= act_address(p->segment[s].keys) | act_address(p->segment[s].values) |
                (uintptr_t)p->segment[s].stride * sizeof(bf16);
    return act_aligned(bits);
}

struct shape shape_of(const struct attention_problem *p, bool large_blocks_fill)
{
    struct shape shape;
    shape.aligned = is_aligned(p);
    shape.dim = !shape.aligned || p->head_dim > 80 ? WIDEST : p->head_dim <= 32 ? 32 : p->head_dim <= 64 ? 64 : 80;
    const bool few = p->rows <= GROWING_ROWS, many = p->rows > 64 && large_blocks_fill;
    shape.block_rows = !shape.aligned ? 64 : few ? GROWING_ROWS : many ? 128 : 64;
    return shape;
}

/* Problems that wait to share a launch. */
struct pending {
    struct batch batch;
    struct shape shape;
    int blocks, most_keys;
};

void flush(struct cuda_state *state, struct pending *w)
{
    flush(state, w->shape, &w->batch, w->most_keys, w->blocks);
    w->blocks = w->most_keys = 0;
}

/* Have the card count the rows of the last segment, if they grow. */
void count_on_card(const struct cuda_state *state, struct attention_problem *p)
{
    if (!p->segments || !cuda_grows(state, p->segment[p->segments - 1].keys))
        return;
    p->segment[p->segments - 1].rows = NO_END;
    p->keys -= state->growing.rows;
    p->causal_from -= state->growing.rows;
    p->grown = state->growing.rows_on_card;
}

void add(struct cuda_state *state, struct pending *w, struct attention_problem p, bool large_blocks_fill)
{
    struct shape wanted = shape_of(&p, large_blocks_fill);
    if (w->batch.count == PROBLEMS || wanted.dim != w->shape.dim || wanted.block_rows != w->shape.block_rows ||
        wanted.aligned != w->shape.aligned) {
        flush(state, w);
        w->shape = wanted;
    }
    p.row_blocks = (p.rows + w->shape.block_rows - 1) / w->shape.block_rows;
    p.first_block = w->blocks;
    w->blocks += p.row_blocks * p.kv_heads;
    w->most_keys = p.keys > w->most_keys ? p.keys : w->most_keys;
    if (w->shape.block_rows == GROWING_ROWS)
        count_on_card(state, &p);
    w->batch.problem[w->batch.count++] = p;
}

void run_attention(struct kernels *k, const struct attention *problems, int count)
{
    struct cuda_state *state = cuda_of(k);
    long large_blocks = 0;
    for (int i = 0; i < count; i++)
        if (problems[i].q_rows > 0)
            large_blocks += ((long)problems[i].q_rows * (problems[i].heads / problems[i].kv_heads) + 127) / 128 *
                            problems[i].kv_heads;
    struct pending waiting;
    memset(&waiting, 0, sizeof waiting); /* what is not used, too: graphs compare arguments as bytes */
    for (int i = 0; i < count && cuda_running(state); i++) {
        if (problems[i].q_rows <= 0)
            continue;
        struct attention_problem p = convert(&problems[i]);
        if (p.head_dim > WIDEST)
            attention_wide(state, &p, is_aligned(&p));
        else if (!is_aligned(&p) || !attention_by_library(state, &p, problems[i].scale))
            add(state, &waiting, p, large_blocks >= state->multiprocessors);
    }
    flush(state, &waiting);
}

} // namespace

void attention_own(struct cuda_state *state, const struct attention_problem *problem)
{
    struct pending waiting;
    memset(&waiting, 0, sizeof waiting); /* what is not used, too: graphs compare arguments as bytes */
    add(state, &waiting, *problem, true);
    flush(state, &waiting);
}

void cuda_attention_fill(struct kernels *k)
{
    k->attention = run_attention;
    attention_library_open(cuda_of(k));
    /* What cut-up keys can need at most (choose_splits makes no more blocks than multiprocessors): not taken in a
     * job. */
    struct cuda_state *state = cuda_of(k);
    cuda_scratch(state, SCRATCH_PARTIALS,
                 (size_t)state->multiprocessors * BLOCK_ROWS_MAX * (WIDEST + 2) * sizeof(float));
}

void cuda_attention_end(struct kernels *k)
{
    attention_library_close(cuda_of(k));
}
