/* machine_amx.c: AMX's tile products at their fastest, for machine.c; compiled with those instructions enabled. */
#include "tools/lance-bench/machine_amx.h"

#if defined(__AMX_BF16__)

#include <immintrin.h>
#include <stdint.h>

double machine_tiles(void)
{
    enum { STEPS = 400000, SUMS = 4 }; /* sums of their own hide the latency */
    static const struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1, .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64}, .rows = {16, 16, 16, 16, 16, 16, 16, 16}};
    _tile_loadconfig(&shape);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (long step = 0; step < STEPS; step++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_release();
    return 2.0 * 16 * 16 * 32 * SUMS * STEPS;
}

#else

double machine_tiles(void)
{
    return 0.0;
}

#endif
