/* finite.h: whether what a part of the model gave is numbers. NaN or infinity in its weights would go
 * through every stage after it and come out as a black picture; so each stage's outcome is looked at where
 * it is on the host anyway. */
#ifndef LANCE_FINITE_H
#define LANCE_FINITE_H

#include <stddef.h>

#include "base/error.h"

/* ERROR_BAD_FILE when a value is NaN or infinite; `what` says what gave them, such as "decode". */
int finite_check(const float *values, size_t count, const char *what, struct error *error);

#endif
