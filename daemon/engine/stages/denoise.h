/* denoise.h: what is asked of the denoising stage beside what all stages do (stages.h). */
#ifndef LANCE_DENOISE_H
#define LANCE_DENOISE_H

#include "daemon/engine/stages/stages.h"

/* While denoising, after a step: what the first batch item is on its way to, [cells, channels], normalised. */
int denoise_stage_clean(const void *stage, float *clean, struct error *error);
/* Room for previews beside the stage: of the host, while one is made. */
uint64_t preview_scratch_bytes(const struct job *job);

/* Make of job->left.x, the outcome of denoising, the latents that are the result. */
int denoise_finish(struct job *job, struct error *error);

#endif
