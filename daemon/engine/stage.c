/* stage.c: see stage.h. */
#include "daemon/engine/stage.h"

#include <string.h>

static const char *const names[STAGE_COUNT] = {
    [STAGE_PREPARE] = "prepare",  [STAGE_VIT] = "vit",         [STAGE_ENCODE] = "encode", [STAGE_PREFIX] = "prefix",
    [STAGE_DENOISE] = "denoise", [STAGE_DECODE] = "decode", [STAGE_TEXT] = "text",
};

const char *lance_stage_name(enum lance_stage stage)
{
    return (int)stage >= 0 && stage < STAGE_COUNT ? names[stage] : "unknown";
}

int lance_stage_of(const char *name)
{
    for (int stage = 0; stage < STAGE_COUNT; stage++)
        if (!strcmp(names[stage], name))
            return stage;
    return -1;
}
