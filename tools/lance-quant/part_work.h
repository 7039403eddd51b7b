/* part_work.h: quantising one part (layout.h): the search for its scales, its codes, and the norm in front. */
#ifndef LANCE_QUANT_PART_WORK_H
#define LANCE_QUANT_PART_WORK_H

#include "daemon/engine/tap.h"
#include "tools/lance-quant/layout.h"
#include "tools/lance-quant/output.h"

/* Whether the scales of a part will be searched for: it has a norm in front, and statistics of at least one of its
 * layers. */
int part_is_scaled(const struct part *part, const struct statistics *statistics, bool *scaled, struct error *error);

/* Write the part's tensors. Deterministic, whatever `threads`. */
int part_quantise(const struct part *part, const struct statistics *statistics, const struct code_form *form,
                  int threads, struct output *output, struct error *error);

#endif
