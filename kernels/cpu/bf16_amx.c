/* bf16_amx.c: products in bf16 with AMX's tiles; see bf16.h.
 *
 * A tile is 16 rows of 64 bytes: 16 x 32 bf16 numbers, or 16 x 16 float32 sums. Linux gives a process their registers
 * on request only, since they make every switch of threads dearer. Compiled with those instructions enabled, so nothing
 * here but bf16_amx() may run before that function has said that processor and system have them.
 */
#include "kernels/cpu/bf16.h"

#include "base/error.h"

#if defined(__AMX_BF16__) && defined(__linux__)

#include <cpuid.h>
#include <errno.h>
#include <immintrin.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/cpu/bf16_avx512.h"

/* The shape of the tiles, as LDTILECFG reads it. In static memory: compilers do not see that the
 * instruction reads it all. */
static const struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tiles = {.palette = 1,
           .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
           .rows = {BF16_TILE, BF16_TILE, BF16_TILE, BF16_TILE, BF16_TILE, BF16_TILE, BF16_TILE, BF16_TILE}};

static void amx_begin(unsigned *saved)
{
    *saved = 0;
    _tile_loadconfig(&tiles);
}

static void amx_end(unsigned saved)
{
    (void)saved;
    _tile_release();
}

/* Tiles 0..3 are sums, 4 and 5 rows, 6 and 7 panels. */
static inline __attribute__((always_inline)) void multiply(const struct bf16_product *p, const bool two_rows,
                                                           const bool two_columns)
{
    const size_t c_bytes = p->c_row * sizeof(float), row_bytes = p->row_distance * sizeof(bf16);
    float *below = p->c + BF16_TILE * p->c_row;
    _tile_zero(0);
    if (two_columns)
        _tile_zero(1);
    if (two_rows)
        _tile_zero(2);
    if (two_rows && two_columns)
        _tile_zero(3);
    if (p->accumulate) {
        _tile_loadd(0, p->c, c_bytes);
        if (two_columns)
            _tile_loadd(1, p->c + BF16_TILE, c_bytes);
        if (two_rows)
            _tile_loadd(2, below, c_bytes);
        if (two_rows && two_columns)
            _tile_loadd(3, below + BF16_TILE, c_bytes);
    }
    const bf16 *panel = p->panels;
    for (int s = 0; s < p->segments; s++) {
        const bf16 *row = p->rows[s];
        for (size_t k = 0; k < p->steps; k++, row += BF16_STEP, panel += BF16_PANEL_STEP) {
            _tile_loadd(6, panel, 64);
            _tile_loadd(4, row, row_bytes);
            _tile_dpbf16ps(0, 4, 6);
            if (two_columns) {
                _tile_loadd(7, panel + p->panel_distance, 64);
                _tile_dpbf16ps(1, 4, 7);
            }
            if (two_rows) {
                _tile_loadd(5, row + BF16_TILE * p->row_distance, row_bytes);
                _tile_dpbf16ps(2, 5, 6);
                if (two_columns)
                    _tile_dpbf16ps(3, 5, 7);
            }
        }
    }
    _tile_stored(0, p->c, c_bytes);
    if (two_columns)
        _tile_stored(1, p->c + BF16_TILE, c_bytes);
    if (two_rows)
        _tile_stored(2, below, c_bytes);
    if (two_rows && two_columns)
        _tile_stored(3, below + BF16_TILE, c_bytes);
}

static void amx_multiply(const struct bf16_product *p)
{
    if (p->row_tiles == 2 && p->column_tiles == 2)
        multiply(p, true, true);
    else if (p->row_tiles == 2)
        multiply(p, true, false);
    else if (p->column_tiles == 2)
        multiply(p, false, true);
    else
        multiply(p, false, false);
}

const struct bf16_loops *bf16_amx(struct error *error)
{
    static const struct bf16_loops loops = {
        .name = "cpu-amx-bf16",
        .begin = amx_begin,
        .end = amx_end,
        .multiply = amx_multiply,
        .round = bf16_avx512_round,
        .pack_columns = bf16_avx512_pack_columns,
        .pack_depth = bf16_avx512_pack_depth,
        .decode = bf16_avx512_decode,
        .store_transposed = bf16_avx512_store_transposed,
    };
    enum { ARCH_REQUEST_PERMISSION = 0x1023, TILE_DATA = 18, AMX_BF16 = 1 << 22, AMX_TILE = 1 << 24 };
    unsigned a, b, c, d;
    if (!bf16_avx512(error) || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & AMX_BF16) || !(d & AMX_TILE)) {
        error_set(error, ERROR_UNSUPPORTED, "this processor has no AMX with bf16");
        return NULL;
    }
    if (syscall(SYS_arch_prctl, ARCH_REQUEST_PERMISSION, TILE_DATA)) {
        error_set(error, ERROR_UNSUPPORTED, "the system does not let this process use AMX's tiles: %s",
                  strerror(errno));
        return NULL;
    }
    return &loops;
}

#else

const struct bf16_loops *bf16_amx(struct error *error)
{
    error_set(error, ERROR_UNSUPPORTED, "this program was built without AMX");
    return NULL;
}

#endif
