/* sizes.c: see sizes.h. lance-3b is the released model; tiny has the same parts, each as small as it may be; of
 * lance-3b-decoder the language model is the former's, and the others are the latter's. */
#include "tools/random-checkpoint/sizes.h"

#include <stddef.h>
#include <string.h>

#define LANGUAGE_MODEL_OF_3B .hidden = 2048, .layers = 36, .heads = 16, .kv_heads = 2, .inter = 11008, \
                             .mrope_section = {16, 24, 24}
#define TINY_PARTS .vit_depth = 4, .vit_hidden = 64, .vit_heads = 4, .vit_inter = 192, .vit_full_blocks = {1, 3}, \
                   .vit_full_block_count = 2, .vae_encoder_dim = 8, .vae_decoder_dim = 12

static const struct sizes known[] = {
    {.name = "lance-3b", LANGUAGE_MODEL_OF_3B, .vit_depth = 32, .vit_hidden = 1280, .vit_heads = 16, .vit_inter = 3420,
     .vit_full_blocks = {7, 15, 23, 31}, .vit_full_block_count = 4, .vae_encoder_dim = 160, .vae_decoder_dim = 256},
    {.name = "tiny", .hidden = 128, .layers = 4, .heads = 4, .kv_heads = 2, .inter = 256, .mrope_section = {4, 6, 6},
     TINY_PARTS},
    {.name = "lance-3b-decoder", LANGUAGE_MODEL_OF_3B, TINY_PARTS},
};

const struct sizes *sizes_of(const char *name)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].name, name))
            return &known[i];
    return NULL;
}
