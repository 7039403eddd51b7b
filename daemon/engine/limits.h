/* limits.h: how large requests may be; what is over one of these is refused by name. */
#ifndef LANCE_LIMITS_H
#define LANCE_LIMITS_H

#include "daemon/engine/model/decoder.h"
#include "daemon/engine/model/picture.h"
#include "daemon/engine/model/token_grid.h"

enum {
    LANCE_MAX_BATCH = DECODER_MAX_SEQUENCES / 2,
    LANCE_MAX_SIDE = LATENT_MAX_SIDE * VAE_SPATIAL_STRIDE,                   /* 1024 pixels */
    LANCE_MAX_FRAMES = 1 + (LATENT_MAX_FRAMES - 1) * VAE_TEMPORAL_STRIDE,    /* 121 */
    LANCE_MAX_STEPS = 1000,
    LANCE_MAX_PREPARED_SIDE = PICTURE_MAX_PREPARED_SIDE,
    LANCE_MAX_NEW_TOKENS = 4096,
    LANCE_MAX_SOURCE_SIDE = 8192,
    LANCE_MAX_SOURCE_FRAMES = 100000,
    LANCE_DEFAULT_SIDE = 768,
    LANCE_VIDEO_FPS = 12
};

_Static_assert((int)LANCE_MAX_SIDE == LARGEST_SIDE, "clients know how large pictures may be");

#endif
