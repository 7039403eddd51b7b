/* sampler.c: see sampler.h. */
#include "daemon/engine/model/sampler.h"

/* torch.linspace(1, 0, steps + 1): from each end towards the middle. */
static float linear_timestep(int i, int steps)
{
    const float step = -1.0f / (float)steps;
    if (i < (steps + 1) / 2)
        return 1.0f + step * (float)i;
    return 0.0f - step * (float)(steps - i);
}

float sampler_timestep(int i, int steps, double shift)
{
    const float scale = (float)shift, rest = (float)(shift - 1.0), t = linear_timestep(i, steps);
    float numerator = scale * t, denominator = 1.0f + rest * t;
    return numerator / denominator;
}

int sampler_schedule_steps(int steps, double denoise)
{
    return denoise > 0.9999 ? steps : (int)(steps / denoise);
}

bool sampler_is_guided(float t, double guidance_scale, const double interval[2])
{
    return guidance_scale > 1.0 && t > (float)interval[0] && t <= (float)interval[1];
}
