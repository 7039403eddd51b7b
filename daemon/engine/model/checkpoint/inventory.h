/* inventory.h: which tensors a Lance checkpoint must have, and whether they are there and fit its configuration.
 *
 * The tensors come in four groups, because a checkpoint may lack a whole group and still be good for some tasks.
 */
#ifndef LANCE_INVENTORY_H
#define LANCE_INVENTORY_H

#include "daemon/engine/model/checkpoint/notes.h"
#include "daemon/engine/model/checkpoint/tensors.h"

enum inventory_group {
    INVENTORY_UNDERSTANDING, /* the language model itself: every task needs it */
    INVENTORY_GENERATION,    /* the _moe_gen twins, timestep embedder, vae2llm, llm2vae */
    INVENTORY_VIT,
    INVENTORY_VAE            /* only the tensors that tell its widths */
};

enum { INVENTORY_NAMES_SHOWN = 4 };

struct inventory {
    int found;
    int missing;
    struct notes missing_names; /* the first INVENTORY_NAMES_SHOWN */
};

/* Go through one group. A missing tensor is counted; one of the wrong dtype or shape is ERROR_BAD_FILE, naming it and
 * both shapes. `config` holds what the JSON files say; of the VAE group its vae member is filled in. */
int inventory_check(const struct tensor_table *tensors, enum inventory_group group, struct lance_config *config,
                    struct inventory *inventory, struct error *error);

#endif
