/* admission.h: what a job takes of memory, before it starts: the needs of its stages, of which it knows all, added up,
 * and whether that fits. */
#ifndef LANCE_ADMISSION_H
#define LANCE_ADMISSION_H

#include "daemon/engine/stages/stages.h"

struct job_memory {
    struct lance_memory stages[STAGE_COUNT]; /* all that is held while a stage runs; 0: the job has no such stage */
    struct lance_memory peak;                /* the most of each at any time, when nothing is found in the prefix
                                              * cache */
};

/* The kind of a stage; `stage` is in range. */
const struct stage_kind *stage_kind_of(enum lance_stage stage);

/* Of a job whose model, kernels, request and plan are set. */
void job_memory_plan(const struct job *job, struct job_memory *memory);

/* What it takes of the memory that the model's limit is about; and ERROR_TOO_LARGE with the numbers when that is over
 * the limit. */
uint64_t job_memory_need(const struct lance_memory *memory, const struct lance_model *model);
int job_memory_check_fit(const struct lance_memory *memory, const struct lance_model *model, struct error *error);

#endif
