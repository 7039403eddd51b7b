/* stage.h: the stages that jobs go through, in this order; each task has some of them (run.c says what a step of each
 * is). */
#ifndef LANCE_STAGE_H
#define LANCE_STAGE_H

enum lance_stage {
    STAGE_PREPARE, /* frames, noise and latents of the request */
    STAGE_VIT,     /* the vision transformer, of the source */
    STAGE_ENCODE, /* the VAE's encoder, of the source */
    STAGE_PREFIX,  /* everything before the block that is generated */
    STAGE_DENOISE,
    STAGE_DECODE, /* the VAE's decoder */
    STAGE_TEXT,    /* an answer, token by token */
    STAGE_COUNT
};

/* "prepare", "vit", "encode", "prefix", "denoise", "decode", "text". */
const char *lance_stage_name(enum lance_stage stage);
int lance_stage_of(const char *name); /* or -1 */

#endif
