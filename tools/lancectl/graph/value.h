/* value.h: what flows along the links of a graph: pictures, videos, latents, texts, numbers.
 *
 * A value is made once, filled by who makes it, and from then on only read; whoever keeps it holds it. One thread.
 */
#ifndef LANCECTL_GRAPH_VALUE_H
#define LANCECTL_GRAPH_VALUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum value_kind {
    VALUE_NOTHING, /* such as the sound of a silent video */
    VALUE_TEXT, VALUE_WHOLE, VALUE_NUMBER, VALUE_FLAG,
    VALUE_IMAGE, VALUE_MASK, VALUE_VIDEO, VALUE_AUDIO, VALUE_LATENT, VALUE_MODEL
};

/* A whole number as large as seeds are. */
struct whole {
    bool is_negative;
    uint64_t magnitude;
};

/* A batch of pictures, or the frames of a video: RGB as bytes, or as floats where ComfyUI has values between those
 * of bytes. Of a mask, floats [count, height, width]. */
struct pictures {
    int count, height, width;
    uint8_t *bytes;  /* [count, height, width, 3], or NULL */
    float *floats;   /* the same in 0..1, or NULL */
    char **receipts; /* of each picture, ASCII, some NULL; or NULL */
};

enum { LATENT_DIMENSIONS = 5 };

/* f32 [batch, channels, frames, rows, columns], as ComfyUI's LATENT has them. */
struct latent {
    int shape[LATENT_DIMENSIONS];
    bool is_flat;        /* ComfyUI has it without the dimension of frames */
    float *samples;      /* NULL: zeros */
    float *state;        /* the daemon's exact state where noise is left, or NULL */
    int pixels_per_cell; /* of an empty latent of another model; 0: not said */
    int *noise_places;   /* for each batch item, which noise of the seed's row is its own; NULL: in order */
    char *receipt;       /* or NULL */
};

struct value {
    enum value_kind kind;
    int holders;
    char *text;          /* of a text; the name of a model; the file of a video or of a sound */
    struct whole whole;
    double number;       /* of a number; frames per second of a video's pictures */
    bool flag;
    struct pictures pictures;
    struct latent latent;
    struct value *sound; /* of a video of pictures: a VALUE_AUDIO, or NULL */
};

/* A value held once by the caller; NULL: out of memory. */
struct value *value_new(enum value_kind kind);
struct value *value_of_text(const char *text);
struct value *value_of_number(double number);

struct value *value_hold(struct value *value);
void value_release(struct value *value); /* NULL is allowed */

/* ComfyUI's name of a kind, for messages. */
const char *value_kind_name(enum value_kind kind);

/* A number, whether whole or not. */
double value_number(const struct value *value);

/* The text of a value of one of the first kinds, as Python's str() writes it. malloc'ed; NULL: out of memory. */
char *value_print(const struct value *value);

/* Room for `count` pictures of height x width, of bytes, with no receipts. ERROR_TOO_LARGE, ERROR_NO_MEMORY. */
int pictures_open(struct pictures *out, int count, int height, int width, bool are_floats, struct error *error);

/* `count` of them from `first` on, copied. */
int pictures_part(struct pictures *out, const struct pictures *of, int first, int count, struct error *error);

/* All of several batches, one after the other. ERROR_BAD_REQUEST when their sizes differ. */
int pictures_join(struct pictures *out, const struct pictures *const *parts, int count, struct error *error);

/* Bytes [count, height, width, 3] of pictures from `first` on: as ComfyUI's savers make them of floats, cut off, or
 * as the nodes do, rounded. *owned is to be freed and may be NULL: the bytes are then the batch's own.
 * ERROR_NO_MEMORY; ERROR_BAD_REQUEST for values that are no numbers. */
int pictures_bytes(const uint8_t **bytes, uint8_t **owned, const struct pictures *of, int first, int count, bool rounds,
                   struct error *error);

const char *pictures_receipt(const struct pictures *of, int index); /* or NULL */

/* Values of a latent. */
size_t latent_values(const struct latent *latent);

#endif
