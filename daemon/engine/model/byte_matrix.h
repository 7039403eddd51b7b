/* byte_matrix.h: a dense matrix of a checkpoint in 8 bits a weight, rounded while it is loaded.
 *
 * Codes and scales are those of WEIGHT_INT8 (kernels/formats/weights.h), to the nearest code of the smallest scale that
 * holds a group. Owned by whoever opened it; made and read by the thread that loads the model.
 */
#ifndef LANCE_BYTE_MATRIX_H
#define LANCE_BYTE_MATRIX_H

#include "base/error.h"
#include "kernels/formats/weights.h"

struct byte_matrix {
    struct linear_source source; /* borrows `memory` */
    void *memory;                /* NULL: nothing is open */
    uint64_t bytes;
};

/* Round a matrix [out, in] of float32 or bf16, a second or so for 300 million weights. Its bias stays borrowed. Errors:
 * ERROR_UNSUPPORTED (its columns have no groups of 128), ERROR_BAD_FILE (a weight that is no number, with where it is),
 * ERROR_NO_MEMORY. */
int byte_matrix_open(struct byte_matrix *out, const struct linear_source *dense, struct error *error);
void byte_matrix_close(struct byte_matrix *matrix); /* also one that nothing was opened in, of zeros */

#endif
