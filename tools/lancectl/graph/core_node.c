/* core_node.c: see core_node.h. */
#include "tools/lancectl/graph/core_node.h"

#include <string.h>

#include "tools/lancectl/graph/core_latents.h"
#include "tools/lancectl/graph/core_load.h"
#include "tools/lancectl/graph/core_pictures.h"
#include "tools/lancectl/graph/core_save.h"
#include "tools/lancectl/graph/core_texts.h"

static const struct {
    const char *id;
    int (*run)(struct work *work, struct error *error);
} known[] = {
    {"LoadImage", load_image},
    {"LoadVideo", load_video},
    {"LoadLatent", load_latent},
    {"SaveImage", save_image},
    {"PreviewImage", preview_image},
    {"SaveVideo", save_video},
    {"SaveLatent", save_latent},
    {"LancedSaveFile", save_file},
    {"ImageFromBatch", image_from_batch},
    {"ImageBatch", image_batch},
    {"RebatchImages", rebatch_images},
    {"ImageGrid", image_grid},
    {"CreateVideo", create_video},
    {"GetVideoComponents", get_video_components},
    {"EmptyLatentImage", empty_latent},
    {"EmptySD3LatentImage", empty_latent},
    {"EmptyHunyuanLatentVideo", empty_latent},
    {"RepeatLatentBatch", repeat_latent_batch},
    {"PrimitiveString", pass_on},
    {"PrimitiveStringMultiline", pass_on},
    {"PrimitiveInt", pass_on},
    {"PrimitiveFloat", pass_on},
    {"PrimitiveBoolean", pass_on},
    {"Reroute", pass_on},
    {"StringReplace", string_replace},
    {"PreviewAny", preview_any},
};

int core_node_run(struct work *work, struct error *error)
{
    const char *id = work->node->kind->id;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].id, id)) {
            int code = known[i].run(work, error);
            work->is_done = !code;
            return code;
        }
    return error_set(error, ERROR_INTERNAL, "%s is in core_nodes.json, and lancectl does not know what it does", id);
}
