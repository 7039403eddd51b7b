/* guidance.h: how the guided velocity of a denoising step is scaled back (see struct guided_step in kernels.h). */
#ifndef LANCE_GUIDANCE_H
#define LANCE_GUIDANCE_H

enum guidance_renorm { RENORM_GLOBAL, RENORM_CHANNEL, RENORM_NONE };

#endif
