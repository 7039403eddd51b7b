/* finite.c: see finite.h. */
#include "daemon/engine/model/finite.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* A float is no number, or infinite, when all bits of its exponent are set. */
static unsigned is_odd(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (bits & 0x7f800000u) == 0x7f800000u;
}

int finite_check(const float *values, size_t count, const char *what, struct error *error)
{
    unsigned any = 0;
    for (size_t i = 0; i < count; i++) /* without a branch: it is done for every pixel */
        any |= is_odd(values[i]);
    if (!any)
        return 0;
    size_t first = 0;
    while (!is_odd(values[first]))
        first++;
    return error_set(error, ERROR_BAD_FILE,
                     "%s gave values that are no numbers (NaN or infinity), the first is value %zu of %zu: "
                     "weights of the model are damaged, or latents or noise that were given are far out of range",
                     what, first, count);
}
