/* token_grid.h: tokens of a visual block, one per cell; the same grid is that of latents and of merged ViT patches. */
#ifndef LANCE_TOKEN_GRID_H
#define LANCE_TOKEN_GRID_H

#include "protocol/latent_shape.h"

/* The official table of latent positions holds 31 frames of 64 x 64 cells. */
enum { LATENT_MAX_FRAMES = 31, LATENT_MAX_SIDE = 64 };

/* frames 0: there is no such block. */
struct token_grid {
    int frames, height, width;
};

static inline int token_grid_cells(struct token_grid grid) { return grid.frames * grid.height * grid.width; }

#endif
