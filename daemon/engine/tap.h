/* tap.h: watching what goes into the linear layers of a model while its jobs run: what quantising wants to know.
 *
 * A face of the engine beside lance.h, with what adds up such inputs (gather.h) and keeps the sums (statistics.h).
 * Whoever opens a tap sees every input of every linear layer of both experts, from lance_job_step's thread, in the same
 * order with any number of threads. What earlier jobs left in the prefix cache is not computed again and so not seen:
 * open the model without one. A model without a tap loses nothing.
 */
#ifndef LANCE_TAP_H
#define LANCE_TAP_H

#include "base/error.h"
#include "daemon/engine/gather.h"
#include "daemon/engine/model/linear_input.h"
#include "daemon/engine/statistics.h"

struct lance_model;

/* One watch a model, as long as it is open; another takes its place. `context` must outlive it. Errors:
 * ERROR_NO_MEMORY. */
int lance_tap_open(struct lance_model *model, linear_input_watch *watch, void *context, struct error *error);

#endif
