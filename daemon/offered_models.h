/* offered_models.h: the checkpoints that a command line offers: those that it names, and those that lie in a folder.
 *
 * Used while the command line is read, by one thread.
 */
#ifndef LANCE_OFFERED_MODELS_H
#define LANCE_OFFERED_MODELS_H

#include "base/error.h"

enum { OFFERED_MAX_MODELS = 32, MODEL_NAME_MAX_BYTES = 64 };

struct model_choice {
    char name[MODEL_NAME_MAX_BYTES + 1];
    const char *directory;
};

/* Told of a checkpoint that lacks files, or that is left out and why: there are others, so that it is no error. */
typedef void offered_remark(void *context, const struct error *remark);

struct offered_models {
    struct model_choice *models; /* room for OFFERED_MAX_MODELS */
    int *count;
    offered_remark *remark;
    void *context;
};

/* Add the model of "DIR" or "NAME=DIR"; its directory lies in `text`. One whose name cannot be asked for is left out.
 * Errors: ERROR_BAD_REQUEST (too many, a name twice), ERROR_BAD_FILE (no folder). */
int offered_add(const struct offered_models *offered, const char *text, struct error *error);

/* Add the checkpoints whose folders are right in `folder`, by name, as far as there is room and their names are free. A
 * folder without weights is none. Their directories are allocated and belong to the models. Errors: ERROR_BAD_FILE (the
 * folder cannot be read), ERROR_NO_MEMORY. */
int offered_add_folder(const struct offered_models *offered, const char *folder, struct error *error);

#endif
