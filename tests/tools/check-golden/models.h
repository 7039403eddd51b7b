/* models.h: the models that the cases run on, assembled into a temporary folder and kept open
 * as long as cases want them. */
#ifndef CHECK_GOLDEN_MODELS_H
#define CHECK_GOLDEN_MODELS_H

#include "daemon/engine/lance_model.h"
#include "kernels/backend.h"
#include "tests/tools/check-golden/golden.h"

struct models {
    char golden_dir[512], folder[64]; /* folder: temporary, removed at the end */
    struct kernels *kernels;
    cJSON *distances;                 /* see golden.h; NULL when the backend computes in float32 */
    struct lance_model *model;        /* the one that is open, or NULL */
    char quant[64];
    bool rounded;
};

int models_open(struct models *models, const char *golden_dir, const struct backend_options *backend,
                struct error *error);
/* The model of a case; it stays open until another is asked for. */
int models_for(struct models *models, const struct golden *golden, struct lance_model **model, struct error *error);
void models_close(struct models *models);

#endif
