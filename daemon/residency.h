/* residency.h: which of the offered models are in memory, what memory they leave to jobs, and whether their files are
 * still what was read.
 *
 * One thread, the worker's, loads, unloads and uses models. Others read what a lock guards here, choose among the
 * models that are offered, and have requests checked by one that is in memory. Models are known by their index among
 * those of the command line.
 */
#ifndef LANCE_RESIDENCY_H
#define LANCE_RESIDENCY_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/calibration.h"
#include "daemon/engine/lance.h"
#include "daemon/model_choice.h"
#include "daemon/options.h"

struct residency;

/* `options` and `kernels` must outlive it. ERROR_NO_MEMORY. */
int residency_open(struct residency **out, const struct options *options, struct kernels *kernels,
                   struct error *error);

/* Have this calibration, which must outlive it, count what goes into models. Before the worker's thread starts. */
void residency_calibrate(struct residency *residency, struct calibration *calibration);

/* With the models that are in memory. NULL is allowed. */
void residency_close(struct residency *residency);

/* Have on_load(context) called whenever a model was loaded or could not be, from the worker's thread and without a
 * lock. Set it before that thread starts. */
void residency_on_load(struct residency *residency, void (*on_load)(void *context), void *context);

/* --- For the worker's thread -------------------------------------------------------------- */

/* Have a model in memory. Where there is no memory for it beside those that are there, those that nobody holds go
 * first, least recently used first, but not before all that can be known of it was looked at; where there are as many
 * as the options allow, one goes when it is loaded. Errors: what the load failed of; those that had gone for it are
 * loaded again, which it says. ERROR_BUSY when all that are there are held. */
int residency_load(struct residency *residency, int index, struct error *error);

/* Whether it is in memory, or has room beside all that are. */
bool residency_has_room(const struct residency *residency, int index);

/* Unload all that nobody holds. */
void residency_unload(struct residency *residency);

/* A model that is in memory, which stays there until it is let go as often as it was held. Its jobs may take what those
 * of other models have left; residency_is_alone: no other is in memory, so that there is no more to be had. */
struct lance_model *residency_hold(struct residency *residency, int index);
bool residency_is_alone(const struct residency *residency);

/* Unload the other model that was not used for longest and nobody holds; false: there is none. */
bool residency_give_way(struct residency *residency, int index);
void residency_let_go(struct residency *residency, int index);

/* Unload a model whose files are not what they were when it was loaded, unless it is held; `job` is the one that it is
 * looked at for. */
void residency_drop_changed(struct residency *residency, int index, const char *job);

/* ERROR_BAD_FILE when a part of a model's files was lost while it was in memory. */
int residency_check_lost(const struct residency *residency, int index, struct error *error);

/* ERROR_BAD_FILE when not all that was read of a model's files until now was what they held when they were opened. */
int residency_check_files(const struct residency *residency, int index, struct error *error);

/* Note what a model in memory holds now, for residency_status. */
void residency_note(struct residency *residency, int index);

/* When the first model will have been idle for as long as the options say (of clock.h); 0: never. Then unload those
 * that have. */
double residency_idle_end(const struct residency *residency);
void residency_unload_idle(struct residency *residency);

/* --- For any thread ------------------------------------------------------------------------ */

struct residency_status {
    int loaded; /* index of the model in memory that was used last, or -1; what follows is about it */
    int last;   /* of the one loaded last, or the default one */
    struct lance_model_info info;
    struct lance_prefixes prefixes;
    struct lance_held all_held;  /* of all models in memory */
    uint64_t memory_limit_bytes; /* of jobs, beside the weights; 0: none */
    char backend[400];           /* all that a result's bytes depend on; it may change in a job, as kernels.h says */
    uint64_t loads, unloads;
};
void residency_status(struct residency *residency, struct residency_status *out);

/* Of a model in memory. */
void residency_info(struct residency *residency, int index, struct lance_model_info *out);

/* What a result made by that model now would depend on: its hash (SHA256_HEX_BYTES) and the backend's name. false: it
 * is not in memory, or its files are not what they were when it was loaded. Looks at the files' names. */
bool residency_identify(struct residency *residency, int index, char *hash, char backend[400]);

/* Loads that were tried so far. */
uint64_t residency_attempts(struct residency *residency);

bool residency_is_loaded(struct residency *residency, int index);

/* Whether a load of that model failed since so many loads had been tried; `error` says why. */
bool residency_has_failed(struct residency *residency, int index, uint64_t since, struct error *error);

/* What is known of an offered model since it was loaded for the first time; false: nothing yet. */
bool residency_knows(struct residency *residency, int index, char kind[32], unsigned *tasks);

/* What weights may take, by which "automatic" judges models (model_choice.h). */
uint64_t residency_budget_bytes(const struct residency *residency);

/* Index of the model of that name; NULL: the one in memory, else the one loaded last, else the default. Errors:
 * ERROR_NOT_FOUND naming those that are offered. */
int residency_find(struct residency *residency, const char *name, int *index, struct error *error);

/* The same for a job of this task: MODEL_AUTOMATIC (model_choice.h) is the model that suits it best. */
int residency_choose(struct residency *residency, const char *name, enum lance_task task, int *index,
                     struct error *error);

/* Have the engine check a request if that model is in memory; 0 if it is not. */
int residency_check(struct residency *residency, int index, const struct lance_request *request, struct error *error);

/* What a request would take of a model in memory. Errors: those of lance_request_check, of which ERROR_TOO_LARGE comes
 * with `memory` filled in where it is the limit of memory that is in the way; ERROR_NOT_FOUND: it is not in memory;
 * ERROR_BUSY: a model is put in its place or taken away right now. */
int residency_estimate(struct residency *residency, int index, const struct lance_request *request,
                       struct lance_memory *memory, struct error *error);

#endif
