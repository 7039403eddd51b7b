/* kinds.c: see kinds.h. */
#include "daemon/engine/stages/kinds.h"

const struct stage_kind *stage_kind_of(enum lance_stage stage)
{
    static const struct stage_kind *const kinds[STAGE_COUNT] = {
        [STAGE_PREPARE] = &prepare_stage, [STAGE_VIT] = &vit_stage,         [STAGE_ENCODE] = &encode_stage,
        [STAGE_PREFIX] = &prefix_stage,   [STAGE_DENOISE] = &denoise_stage, [STAGE_DECODE] = &decode_stage,
        [STAGE_TEXT] = &text_stage,
    };
    return kinds[stage];
}
