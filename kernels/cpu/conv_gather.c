/* conv_gather.c: see conv_gather.h. */
#include "kernels/cpu/conv_gather.h"

const float *conv_pixel(const struct conv_gather *g, int frame, int row, int column)
{
    const struct conv_call *call = g->call;
    if (row < 0 || row >= g->in_rows || column < 0 || column >= g->in_columns || frame < -call->past_frames)
        return NULL;
    const float *base = floats(call->x);
    if (frame < 0) {
        base = floats(call->past);
        frame += call->past_frames;
    }
    if (call->upsample2x) {
        row /= 2;
        column /= 2;
    }
    size_t at = ((size_t)frame * (size_t)call->height + (size_t)row) * (size_t)call->width + (size_t)column;
    return base + at * (size_t)g->conv->in_channels;
}
