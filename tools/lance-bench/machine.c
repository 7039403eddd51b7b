/* machine.c: see machine.h. */
#include "tools/lance-bench/machine.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "tools/lance-bench/machine_amx.h"
#endif

enum { MAX_THREADS = 256, SUMS = 10, STEPS = 2000000 };
/* Of one thread: far more than its share of any cache, read a piece a round: short rounds find quiet moments. */
static const size_t beyond_caches_bytes = (size_t)192 << 20, beyond_caches_piece_bytes = (size_t)16 << 20;

/* One thread's share of a measurement. `work` returns operations or bytes; `kept` keeps its result alive. */
struct share {
    pthread_t thread;
    pthread_barrier_t *start;
    double (*work)(struct share *share);
    const char *buffer;
    size_t buffer_bytes, piece_bytes; /* a round reads one piece, the next round the next one */
    size_t next_piece;                /* where in the buffer the next round starts */
    volatile float kept;
    double amount, began, ended;
};

#if defined(__x86_64__)
static double multiply_adds_tiles(struct share *share)
{
    (void)share;
    return machine_tiles();
}

/* Ten independent chains hide the latency of a dot product, and of a fused multiply-add. */
__attribute__((target("avx512f,avx512bf16"))) static double multiply_adds_pairs(struct share *share)
{
    __m512 sum[SUMS];
    const __m512i factor = _mm512_set1_epi16(0x3f00);
    for (int i = 0; i < SUMS; i++)
        sum[i] = _mm512_set1_ps((float)i);
    for (long step = 0; step < STEPS / 4; step++)
#pragma GCC unroll 10
        for (int i = 0; i < SUMS; i++)
            sum[i] = _mm512_dpbf16_ps(sum[i], (__m512bh)factor, (__m512bh)factor);
    for (int i = 1; i < SUMS; i++)
        sum[0] = _mm512_add_ps(sum[0], sum[i]);
    share->kept = _mm512_cvtss_f32(sum[0]);
    return 2.0 * 32 * SUMS * (STEPS / 4);
}

#endif

/* Multiply-adds of vectors of `width` floats. */
#define MULTIPLY_ADDS(name, attribute, vector, width, all, multiply_add, first_of)                                     \
    attribute static double name(struct share *share)                                                                  \
    {                                                                                                                  \
        vector sum[SUMS], factor = all(0.999f);                                                                        \
        for (int i = 0; i < SUMS; i++)                                                                                 \
            sum[i] = all((float)i);                                                                                    \
        for (long step = 0; step < STEPS; step++)                                                                      \
            _Pragma("GCC unroll 10") for (int i = 0; i < SUMS; i++) sum[i] = multiply_add(sum[i], factor, factor);     \
        for (int i = 1; i < SUMS; i++)                                                                                 \
            sum[0] += sum[i];                                                                                          \
        share->kept = first_of(sum[0]);                                                                                \
        return 2.0 * (width) * SUMS * STEPS;                                                                           \
    }

typedef float portable_vector __attribute__((vector_size(16)));
#define PORTABLE_ALL(value) ((value) - (portable_vector){0})
#define PORTABLE_MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#define PORTABLE_FIRST(v) ((v)[0])
MULTIPLY_ADDS(multiply_adds_portable, , portable_vector, 4, PORTABLE_ALL, PORTABLE_MULTIPLY_ADD, PORTABLE_FIRST)
#if defined(__x86_64__)
MULTIPLY_ADDS(multiply_adds_avx2, __attribute__((target("avx2,fma"))), __m256, 8, _mm256_set1_ps, _mm256_fmadd_ps,
              _mm256_cvtss_f32)
MULTIPLY_ADDS(multiply_adds_avx512, __attribute__((target("avx512f"))), __m512, 16, _mm512_set1_ps, _mm512_fmadd_ps,
              _mm512_cvtss_f32)
#endif

/* The next piece of the buffer in so many places at a time, each far enough from the others to be a stream of its own,
 * fetched so many bytes ahead of the processor's own guess, or not (0). Which way is the fastest differs between
 * machines, so several are tried, in the widest registers. */
enum { MOST_STREAMS = 8, READ_WAYS = 3 };
#define READ_FUNCTION(name, bytes, streams, ahead, attribute)                                                          \
    attribute static double name(struct share *share)                                                                  \
    {                                                                                                                  \
        typedef uint64_t words __attribute__((vector_size(bytes)));                                                    \
        words sum[streams] = {{0}};                                                                                    \
        const char *from = share->buffer + share->next_piece;                                                          \
        const size_t stream_bytes = share->piece_bytes / (streams);                                                    \
        share->next_piece = (share->next_piece + share->piece_bytes) % share->buffer_bytes;                            \
        for (size_t i = 0; i < stream_bytes; i += 64)                                                                  \
            for (size_t s = 0; s < (streams); s++) {                                                                   \
                const char *at = from + s * stream_bytes + i;                                                          \
                if (ahead)                                                                                             \
                    __builtin_prefetch(at + (ahead));                                                                  \
                for (size_t j = 0; j < 64; j += (bytes))                                                               \
                    sum[s] ^= *(const words *)(const void *)(at + j);                                                  \
            }                                                                                                          \
        for (int s = 1; s < (streams); s++)                                                                            \
            sum[0] ^= sum[s];                                                                                          \
        share->kept = (float)(sum[0][0] ^ sum[0][1]);                                                                  \
        return (double)share->piece_bytes;                                                                             \
    }
#define READ_FUNCTIONS(name, bytes, attribute)                                                                         \
    READ_FUNCTION(name##_8, bytes, MOST_STREAMS, 1024, attribute)                                                      \
    READ_FUNCTION(name##_4, bytes, 4, 0, attribute)                                                                    \
    READ_FUNCTION(name##_2, bytes, 2, 2048, attribute)                                                                 \
    static double (*const name[READ_WAYS])(struct share *) = {name##_8, name##_4, name##_2};
READ_FUNCTIONS(read_portable, 16, )
#if defined(__x86_64__)
READ_FUNCTIONS(read_avx2, 32, __attribute__((target("avx2"))))
READ_FUNCTIONS(read_avx512, 64, __attribute__((target("avx512f"))))
#endif

static void *run_share(void *argument)
{
    struct share *share = argument;
    pthread_barrier_wait(share->start);
    share->began = clock_seconds();
    share->amount = share->work(share);
    share->ended = clock_seconds();
    return NULL;
}

/* Work of all threads together, per second, from the first start to the last end. */
static double round_rate(struct share *shares, int threads, double (*work)(struct share *))
{
    pthread_barrier_t start;
    pthread_barrier_init(&start, NULL, (unsigned)threads);
    for (int i = 0; i < threads; i++) {
        shares[i].start = &start;
        shares[i].work = work;
    }
    int started = 1;
    while (started < threads && !pthread_create(&shares[started].thread, NULL, run_share, &shares[started]))
        started++;
    double rate = 0.0;
    if (started == threads) {
        run_share(&shares[0]);
        double amount = 0.0, began = shares[0].began, ended = shares[0].ended;
        for (int i = 0; i < threads; i++) {
            if (i)
                pthread_join(shares[i].thread, NULL);
            amount += shares[i].amount;
            began = shares[i].began < began ? shares[i].began : began;
            ended = shares[i].ended > ended ? shares[i].ended : ended;
        }
        rate = amount / (ended - began);
    } else {
        exit(1); /* the threads that wait at the barrier would wait for ever */
    }
    pthread_barrier_destroy(&start);
    return rate;
}

/* The best round of `ways` kinds of work, in turns. */
static double best_rate(struct share *shares, int threads, double seconds, double (*const *work)(struct share *),
                        int ways)
{
    double best = 0.0, end = clock_seconds() + seconds;
    for (int round = 0; round < ways || clock_seconds() < end; round++) {
        const double rate = round_rate(shares, threads, work[round % ways]);
        best = rate > best ? rate : best;
    }
    return best;
}

double machine_gflops(int threads, double seconds, const char *backend)
{
    double (*work)(struct share *) = multiply_adds_portable;
#if defined(__x86_64__)
    if (!strcmp(backend, "cpu-amx-bf16"))
        work = multiply_adds_tiles;
    else if (!strcmp(backend, "cpu-avx512-bf16"))
        work = multiply_adds_pairs;
    else
        work = strstr(backend, "avx512") ? multiply_adds_avx512 : strstr(backend, "avx2") ? multiply_adds_avx2 : work;
#endif
    (void)backend;
    struct share shares[MAX_THREADS] = {{0}};
    threads = threads < MAX_THREADS ? threads : MAX_THREADS;
    return best_rate(shares, threads, seconds, &work, 1) * 1e-9;
}

double machine_read_gbs(int threads, double seconds, size_t set_bytes)
{
    const size_t line = 64 * MOST_STREAMS; /* a piece is a whole number of lines in every stream */
    struct share shares[MAX_THREADS];
    threads = threads < MAX_THREADS ? threads : MAX_THREADS;
    size_t bytes = set_bytes / (size_t)threads / line * line;
    const bool cached = bytes > 0 && bytes < beyond_caches_bytes;
    bytes = cached ? bytes : beyond_caches_bytes;
    char *buffer = aligned_alloc(64, bytes * (size_t)threads);
    if (!buffer)
        return 0.0;
    memset(buffer, 1, bytes * (size_t)threads);
    for (int i = 0; i < threads; i++)
        shares[i] = (struct share){.buffer = buffer + (size_t)i * bytes, .buffer_bytes = bytes,
                                   .piece_bytes = cached ? bytes : beyond_caches_piece_bytes};
    double (*const *ways)(struct share *) = read_portable;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        ways = read_avx512;
    else if (__builtin_cpu_supports("avx2"))
        ways = read_avx2;
#endif
    const double rate = best_rate(shares, threads, seconds, ways, READ_WAYS) * 1e-9;
    free(buffer);
    return rate;
}
