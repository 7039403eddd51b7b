/* sha256.c: see sha256.h. Letters and constants as in FIPS 180-4, sections 4.2.2 and 6.2. Where the processor has
 * instructions for it (x86's SHA extensions), these are used: some ten times as fast. */
#include "base/sha256.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#if defined(__x86_64__) && !defined(SHA256_PLAIN) /* as a test defines it */
#define HAVE_SHA_INSTRUCTIONS
#include <cpuid.h>
#include <immintrin.h>
#endif

enum { BLOCK_BYTES = 64 };

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate_right(uint32_t x, int by)
{
    return x >> by | x << (32 - by);
}

static void add_block_plain(uint32_t state[8], const uint8_t *block)
{
    uint32_t w[64];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotate_right(w[i - 15], 7) ^ rotate_right(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotate_right(w[i - 2], 17) ^ rotate_right(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
    uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
        uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + K[i] + w[i];
        uint32_t s0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
        uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + t1;
        d = c, c = b, b = a, a = t1 + t2;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
    state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

static void add_blocks_plain(uint32_t state[8], const uint8_t *blocks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        add_block_plain(state, blocks + BLOCK_BYTES * i);
}

#ifdef HAVE_SHA_INSTRUCTIONS
/* Two rounds at a time, on the state as the instructions want it: a, b, e, f in one
 * register, c, d, g, h in the other. */
__attribute__((target("sha,sse4.1"))) static void add_blocks_sha(uint32_t s[8], const uint8_t *blocks, size_t count)
{
    const __m128i swapped = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i abef = _mm_set_epi32((int)s[0], (int)s[1], (int)s[4], (int)s[5]);
    __m128i cdgh = _mm_set_epi32((int)s[2], (int)s[3], (int)s[6], (int)s[7]);
    for (; count > 0; count--, blocks += BLOCK_BYTES) {
        const __m128i abef_before = abef, cdgh_before = cdgh;
        __m128i w[4]; /* the last sixteen words of the schedule */
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (i < 4) {
                w[i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)blocks + i), swapped);
            } else {
                const __m128i last = w[(i + 3) % 4];
                w[i % 4] = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w[i % 4], w[(i + 1) % 4]),
                                                              _mm_alignr_epi8(last, w[(i + 2) % 4], 4)), last);
            }
            const __m128i sum = _mm_add_epi32(w[i % 4], _mm_loadu_si128((const __m128i *)K + i));
            const __m128i after_two = _mm_sha256rnds2_epu32(cdgh, abef, sum);
            cdgh = _mm_sha256rnds2_epu32(abef, after_two, _mm_shuffle_epi32(sum, 0x0e));
            abef = cdgh;
            cdgh = after_two;
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    s[0] = (uint32_t)_mm_extract_epi32(abef, 3), s[1] = (uint32_t)_mm_extract_epi32(abef, 2);
    s[4] = (uint32_t)_mm_extract_epi32(abef, 1), s[5] = (uint32_t)_mm_extract_epi32(abef, 0);
    s[2] = (uint32_t)_mm_extract_epi32(cdgh, 3), s[3] = (uint32_t)_mm_extract_epi32(cdgh, 2);
    s[6] = (uint32_t)_mm_extract_epi32(cdgh, 1), s[7] = (uint32_t)_mm_extract_epi32(cdgh, 0);
}

static bool has_sha(void)
{
    static atomic_int known; /* 1: it has not, 2: it has; asking takes long in a virtual machine */
    unsigned a, b, c, d;
    int has = atomic_load_explicit(&known, memory_order_relaxed);
    if (has == 0) {
        has = 1 + (__builtin_cpu_supports("sse4.1") && __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & 1u << 29);
        atomic_store_explicit(&known, has, memory_order_relaxed);
    }
    return has == 2;
}
#endif

static void add_blocks(uint32_t state[8], const uint8_t *blocks, size_t count)
{
#ifdef HAVE_SHA_INSTRUCTIONS
    if (has_sha()) {
        add_blocks_sha(state, blocks, count);
        return;
    }
#endif
    add_blocks_plain(state, blocks, count);
}

void sha256_start(struct sha256 *sha)
{
    *sha = (struct sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c,
                                     0x1f83d9ab, 0x5be0cd19}};
}

void sha256_add(struct sha256 *sha, const void *data, size_t bytes)
{
    const uint8_t *from = data;
    sha->bytes += bytes;
    while (bytes) {
        if (sha->in_block == 0 && bytes >= BLOCK_BYTES) { /* without a copy */
            const size_t whole = bytes / BLOCK_BYTES;
            add_blocks(sha->state, from, whole);
            from += whole * BLOCK_BYTES;
            bytes -= whole * BLOCK_BYTES;
            continue;
        }
        const size_t room = BLOCK_BYTES - sha->in_block, take = bytes < room ? bytes : room;
        memcpy(sha->block + sha->in_block, from, take);
        sha->in_block += take;
        from += take;
        bytes -= take;
        if (sha->in_block == BLOCK_BYTES) {
            add_blocks(sha->state, sha->block, 1);
            sha->in_block = 0;
        }
    }
}

void sha256_finish(struct sha256 *sha, char hex[SHA256_HEX_BYTES])
{
    uint64_t bits = sha->bytes * 8;
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    sha256_add(sha, "\x80", 1);
    while (sha->in_block != BLOCK_BYTES - sizeof length)
        sha256_add(sha, "", 1);
    sha256_add(sha, length, sizeof length);
    for (int i = 0; i < 8; i++)
        snprintf(hex + 8 * i, 9, "%08x", sha->state[i]);
}

void sha256_of(const void *data, size_t bytes, char hex[SHA256_HEX_BYTES])
{
    struct sha256 sha;
    sha256_start(&sha);
    sha256_add(&sha, data, bytes);
    sha256_finish(&sha, hex);
}

bool sha256_is_hex(const char *text)
{
    return text && strlen(text) == SHA256_HEX_BYTES - 1 &&
           strspn(text, "0123456789abcdef") == SHA256_HEX_BYTES - 1;
}
