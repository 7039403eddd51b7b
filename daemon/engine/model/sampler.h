/* sampler.h: the flow-matching schedule.
 *
 * t runs from 1 (noise) to 0 (picture); a step takes x <- x - v (t_i - t_{i+1}). Computed in
 * float32 operation by operation, as the official script does (validation_gen_KVcache in
 * modeling/lance/lance.py). Pure functions.
 */
#ifndef LANCE_SAMPLER_H
#define LANCE_SAMPLER_H

#include <stdbool.h>

/* t_i of a schedule of `steps` steps, 0 <= i <= steps: 1 = t_0 > ... > t_steps = 0, shifted by
 * t <- shift*t / (1 + (shift - 1)*t). */
float sampler_timestep(int i, int steps, double shift);

/* Steps of the schedule whose last `steps` steps make up the share `denoise` of it, 0 < denoise <= 1: as many as
 * ComfyUI's KSampler takes. */
int sampler_schedule_steps(int steps, double denoise);

/* Whether a step at time t is guided: guidance_scale > 1 and interval[0] < t <= interval[1]. */
bool sampler_is_guided(float t, double guidance_scale, const double interval[2]);

#endif
