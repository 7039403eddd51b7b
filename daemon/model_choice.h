/* model_choice.h: which of the offered models "automatic" stands for, and why.
 *
 * Judged by what is on disk, before anything is loaded: whether the folder is whole, 4-bit or not, of the picture or of
 * the video release, and whether its weights fit into memory. Plain functions; any thread.
 */
#ifndef LANCE_MODEL_CHOICE_H
#define LANCE_MODEL_CHOICE_H

#include <cjson/cJSON.h>

#include "daemon/engine/lance.h"
#include "daemon/options.h"

/* The name that a request gives to leave the choice to the daemon. */
#define MODEL_AUTOMATIC "automatic"

struct model_facts {
    const char *form;      /* "awq", "nvfp4", "int8", "mixed", "mlx", "dense" */
    bool is_four_bit;
    bool is_for_videos;    /* of the release for videos: its folder's name has "Video" in it, as officially */
    uint64_t file_bytes;   /* of its weights, VAE and ViT, as they lie on disk */
    bool fits;             /* file_bytes are within the memory that is judged by */
    char problem[200];     /* what a task would fail of: files that are missing; "" if nothing */
};

/* What the weights may take: the machine's memory without an eighth, or what the device has (`device_bytes` not 0); no
 * more than --memory, where that is given. UINT64_MAX when it is not known. ERROR_NO_MEMORY. */
int model_choice_budget(uint64_t *budget_bytes, const struct options *options, uint64_t device_bytes,
                        struct error *error);

/* Look at one offered model. */
void model_facts_read(struct model_facts *facts, const struct options *options, int index, uint64_t budget_bytes);

/* The model for a task: whole before broken, one that fits before one that does not, of the release that the task wants
 * (videos are officially made and asked about with the one for videos) before the other, 4-bit (or under 1 GB) before
 * dense, and then as the command line has them. `why` gets a sentence about it, with what is not as it
 * should be. Returns its index. */
int model_choose(const struct model_facts *facts, int count, enum lance_task task, char *why, size_t why_bytes);

/* The same, looked at now. */
int model_choose_offered(const struct options *options, uint64_t budget_bytes, enum lance_task task);

/* PROTOCOL.md's fields of one entry of `models`, and the object `automatic`; the caller owns the latter. */
void model_facts_add(cJSON *model, const struct model_facts *facts);
cJSON *model_choice_json(const struct options *options, uint64_t budget_bytes);

#endif
