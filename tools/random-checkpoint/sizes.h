/* sizes.h: the dimensions of a checkpoint to be made. */
#ifndef RANDOM_CHECKPOINT_SIZES_H
#define RANDOM_CHECKPOINT_SIZES_H

#include "protocol/latent_shape.h" /* LATENT_CHANNELS */

enum { MAX_FULL_BLOCKS = 4 };

struct sizes {
    const char *name;
    int hidden, layers, heads, kv_heads, inter; /* hidden and inter are multiples of 128, so
                                                 * that every 4-bit form fits */
    int mrope_section[3];
    int vit_depth, vit_hidden, vit_heads, vit_inter, vit_full_blocks[MAX_FULL_BLOCKS], vit_full_block_count;
    int vae_encoder_dim, vae_decoder_dim;
};

/* The same in every checkpoint of the family. */
enum {
    VOCABULARY = 151936, /* rows of the tables; ids of the tokenizer end at LAST_TOKEN */
    LAST_TOKEN = 151664,
    END_TOKEN = 151645,  /* <|im_end|>, which ends an answer */
    LATENT_POSITIONS = 4096,
    TIME_FREQUENCIES = 256
};

/* "lance-3b", "tiny" or "lance-3b-decoder"; NULL for any other name. */
const struct sizes *sizes_of(const char *name);

#endif
