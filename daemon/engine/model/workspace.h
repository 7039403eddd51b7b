/* workspace.h: where the temporary tensors of a pass lie inside one device allocation.
 *
 * A workspace only does the bookkeeping: take() finds room for a number of elements and
 * answers the element offset, give() makes it free again, `peak` is the highest offset
 * ever in use. It is deterministic, so a caller can rehearse its takes and gives without
 * any memory, allocate `peak` elements, and repeat them for real. One thread.
 */
#ifndef LANCE_WORKSPACE_H
#define LANCE_WORKSPACE_H

#include <stddef.h>

enum { WORKSPACE_MAX_PIECES = 64, WORKSPACE_ALIGNMENT = 64 /* elements */ };

struct workspace {
    struct { size_t at, elements; } piece[WORKSPACE_MAX_PIECES]; /* in use, by ascending offset */
    int pieces;
    size_t peak;
};

/* First fit. More than WORKSPACE_MAX_PIECES at a time is a defect of the caller (asserted). */
size_t workspace_take(struct workspace *workspace, size_t elements);
void workspace_give(struct workspace *workspace, size_t at);

#endif
