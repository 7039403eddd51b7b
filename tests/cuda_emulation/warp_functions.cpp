/* warp_functions.cpp: votes, byte permutation and the tensor core's instructions; see
 * cuda_runtime.h and emulated_mma.h. */
#include "accesses.h"
#include "cuda_bf16.h"
#include "emulated_mma.h"
#include "races.h"

unsigned __ballot_sync(unsigned lanes, int predicate)
{
    const unsigned char *shown = emulated_exchange(lanes, &predicate, sizeof predicate);
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; lane++) {
        int vote = 0;
        if (lanes >> lane & 1)
            memcpy(&vote, shown + lane * EMULATED_EXCHANGE_BYTES, sizeof vote);
        votes |= static_cast<unsigned>(vote != 0) << lane;
    }
    return votes;
}

int __any_sync(unsigned lanes, int predicate)
{
    return __ballot_sync(lanes, predicate) != 0;
}

int __all_sync(unsigned lanes, int predicate)
{
    return __ballot_sync(lanes, predicate) == lanes;
}

unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    const uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
    unsigned result = 0;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned choice = selector >> 4 * i & 15;
        unsigned byte = static_cast<unsigned>(bytes >> 8 * (choice & 7)) & 0xff;
        if (choice & 8) /* the sign of the byte, eight times */
            byte = byte & 0x80 ? 0xff : 0;
        result |= byte << 8 * i;
    }
    return result;
}

/* Element `half` (0 the low one) of a word of two bf16. */
static float element(uint32_t word, unsigned half)
{
    return __uint_as_float(half ? word & 0xffff0000u : word << 16);
}

void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    const unsigned char *shown = emulated_exchange(0xffffffffu, mine, sizeof mine);
    const unsigned lane = emulated_lane(), group = lane / 4, pair = lane % 4;
    float left[2][16], right[2][16]; /* rows group and group + 8 of a, columns 2 * pair and 2 * pair + 1 of b */
    for (unsigned quarter = 0; quarter < 4; quarter++) {
        uint32_t words[6];
        memcpy(words, shown + (group * 4 + quarter) * EMULATED_EXCHANGE_BYTES, sizeof words);
        for (unsigned half = 0; half < 2; half++) {
            left[0][2 * quarter + half] = element(words[0], half);
            left[1][2 * quarter + half] = element(words[1], half);
            left[0][2 * quarter + half + 8] = element(words[2], half);
            left[1][2 * quarter + half + 8] = element(words[3], half);
        }
        for (unsigned column = 0; column < 2; column++) {
            memcpy(words, shown + ((2 * pair + column) * 4 + quarter) * EMULATED_EXCHANGE_BYTES, sizeof words);
            for (unsigned half = 0; half < 2; half++) {
                right[column][2 * quarter + half] = element(words[4], half);
                right[column][2 * quarter + half + 8] = element(words[5], half);
            }
        }
    }
    for (unsigned row = 0; row < 2; row++)
        for (unsigned column = 0; column < 2; column++)
            for (unsigned k = 0; k < 16; k++)
                d[2 * row + column] += left[row][k] * right[column][k];
}

/* Row `row` of matrix `matrix`, of the 32 addresses that the lanes gave. */
static const unsigned char *matrix_row(const unsigned char *shown, unsigned matrix, unsigned row)
{
    const void *address;
    memcpy(&address, shown + (matrix * 8 + row) * EMULATED_EXCHANGE_BYTES, sizeof address);
    if (reinterpret_cast<uintptr_t>(address) % 16)
        abort(); /* ldmatrix wants rows aligned to 16 bytes */
    return static_cast<const unsigned char *>(address);
}

void load_matrices(uint32_t (&r)[4], const void *shared_row)
{
    accesses_matrix_row(shared_row, __builtin_return_address(0));
    const unsigned char *shown = emulated_exchange(0xffffffffu, &shared_row, sizeof shared_row);
    const unsigned lane = emulated_lane();
    for (unsigned m = 0; m < 4; m++) {
        const unsigned char *pair = matrix_row(shown, m, lane / 4) + lane % 4 * 4;
        races_read(pair, sizeof r[m]);
        memcpy(&r[m], pair, sizeof r[m]);
    }
    emulated_exchange(0xffffffffu, &lane, sizeof lane); /* the rows may be overwritten by a lane that goes on */
}

void load_matrices_transposed(uint32_t (&r)[4], const void *shared_row)
{
    accesses_matrix_row(shared_row, __builtin_return_address(0));
    const unsigned char *shown = emulated_exchange(0xffffffffu, &shared_row, sizeof shared_row);
    const unsigned lane = emulated_lane();
    for (unsigned m = 0; m < 4; m++) {
        uint16_t low, high;
        const unsigned char *first = matrix_row(shown, m, lane % 4 * 2) + lane / 4 * 2;
        const unsigned char *second = matrix_row(shown, m, lane % 4 * 2 + 1) + lane / 4 * 2;
        races_read(first, sizeof low);
        races_read(second, sizeof high);
        memcpy(&low, first, sizeof low);
        memcpy(&high, second, sizeof high);
        r[m] = static_cast<uint32_t>(high) << 16 | low;
    }
    emulated_exchange(0xffffffffu, &lane, sizeof lane);
}
