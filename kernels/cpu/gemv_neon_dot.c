/* gemv_neon_dot.c: products of one row with 4-bit weights by ARM's dot-product instruction (SDOT, ARMv8.2), which this
 * file is compiled with: micro_neon() asks first whether the processor has it. See gemv_neon.h. */
#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)

#define dot_of_bytes vdotq_s32
#include "kernels/cpu/gemv_neon_dot.h"
#include "kernels/cpu/gemv_neon.h"

void neon_dot_gemv_codes(const struct gemv *g, int first_column, int columns)
{
    gemv_codes(g, first_column, columns);
}

#else

typedef int nothing_to_compile; /* ISO C forbids an empty file */

#endif
