/* vit.h: the Qwen2.5-VL vision transformer.
 *
 * Window attention with full attention in some blocks, 2-D rotary positions, SwiGLU,
 * RMS norm, and a merger that turns 2x2 patches into one token of the language model's
 * width (LANCE.md section 5). Used by the thread that owns the kernels.
 */
#ifndef LANCE_VIT_H
#define LANCE_VIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "kernels/kernels.h"

struct vit;

/* `round_tables`: round the rotary frequencies to bf16 as the official script does. The checkpoint must outlive the
 * ViT. On a device with memory of its own the weights stay if that leaves it much room; otherwise every run brings its
 * own copy of them, and opening only tries that once. */
int vit_open(struct vit **out, struct kernels *kernels, const struct checkpoint *checkpoint, bool round_tables,
             struct error *error);
void vit_close(struct vit *vit);

/* Whether the weights stay on the device, and how much of its memory they take. */
bool vit_stays(const struct vit *vit, uint64_t *bytes);

/* Grid of a prepared input: frames/2 x height/14 x width/14 patches; tokens = grid_t*grid_h*grid_w/4. */
struct vit_grid { int t, h, w; };

uint64_t vit_bytes(const struct vit *vit, struct vit_grid grid); /* device bytes of a run, weights that it brings
                                                                  * included: exactly what it allocates */
uint64_t vit_host_bytes(const struct vit *vit, struct vit_grid grid); /* and of the host, while it begins */

/* Frames as prepared for the ViT (picture.h): u8 [2*grid.t, 14*grid.h, 14*grid.w, 3], read during begin only. `tokens`
 * is device memory [grid.t*grid.h*grid.w/4, hidden_size of the language model], in natural (row-major cell) order;
 * it is filled by the last step. A run is stepped by block so that it can be interrupted: begin, step until it
 * returns 0, close. */
struct vit_pass;
int vit_begin(struct vit_pass **out, struct vit *vit, const uint8_t *pixels, struct vit_grid grid, act *tokens,
              struct error *error);
int vit_step(struct vit_pass *pass, int *done_blocks, int *blocks, struct error *error); /* 1: more, 0: done, < 0
                                                                                          * error */
void vit_pass_close(struct vit_pass *pass); /* NULL is allowed */

/* The patches after the last finished block, [grid.t*grid.h*grid.w, ViT width], for tests. Windows follow one another,
 * and in a window its 2x2 cells row by row. */
const act *vit_hidden(const struct vit_pass *pass);

#endif
