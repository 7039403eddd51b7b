/* values.h: what is in the tensors of tensors.h. */
#ifndef RANDOM_CHECKPOINT_VALUES_H
#define RANDOM_CHECKPOINT_VALUES_H

#include "tools/random-checkpoint/tensors.h"

/* The bytes [first, first + count) of a tensor's data, into `out`; both multiples of TENSOR_PIECE_ALIGNMENT,
 * but for the tensor's end. */
enum { TENSOR_PIECE_ALIGNMENT = 1024 };
void random_tensor_fill(const struct random_tensor *tensor, uint64_t first, uint64_t count, uint8_t *out);

#endif
