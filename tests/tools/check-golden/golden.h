/* golden.h: one recorded case: its manifest, its tensors, and the inputs it names.
 *
 * A case NAME[.QUANT].MODE has a manifest (.json) and tensors (.safetensors). A tensor
 * that does not depend on the arithmetic is stored in NAME.f32 alone, where golden_find looks too.
 */
#ifndef CHECK_GOLDEN_GOLDEN_H
#define CHECK_GOLDEN_GOLDEN_H

#include <cjson/cJSON.h>
#include <stdbool.h>

#include "daemon/engine/lance.h"
#include "protocol/safetensors.h"

struct golden {
    char name[200];          /* file name without .json */
    char base[128], quant[64], mode[16];
    enum lance_task task;
    cJSON *manifest;
    struct safetensors *own, *plain, *twin; /* the case's, NAME.f32, and for bf16 cases the same case in f32; or NULL */
    struct lance_request request;           /* points into this object */
    struct lance_media source;
    char *source_pixels, *system_prompt;
    float *noise;            /* [target cells, channels] */
    float *encoder_noise;    /* the recorded eps, [channels, cells] */
    const cJSON *distances;  /* DIR/distances.json where the backend computes in bf16; else NULL */
};

/* Read case `name` of folder `cases`; `inputs` is the folder that the example's paths start from. */
int golden_open(struct golden **out, const char *cases, const char *name, const char *inputs, struct error *error);

/* DIR/distances.json: how far the official bf16 runs are from float32
 * (tests/golden/make_distances.py). cJSON_Delete it. */
int golden_read_distances(cJSON **out, const char *dir, struct error *error);

/* The distance of a tensor of this case, or of the case where it is largest when this one was not recorded in bf16; a
 * PSNR in dB for bytes, then the smallest. NAN where nothing is known. */
double golden_distance(const struct golden *golden, const char *tensor);

/* Whether equal greedy tokens cannot be asked for from here on: the backend or the recorded run computes in bf16. */
bool golden_is_rounded(const struct golden *golden);
void golden_close(struct golden *golden);

/* A tensor of the case or, where it is not stored there, of the plain case; NULL if nowhere. The name is made from a
 * format, such as "step%d.cond.v". */
const struct tensor_view *golden_find(const struct golden *golden, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Only in the case's own file. */
const struct tensor_view *golden_own(const struct golden *golden, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Values as freshly malloc'ed float32 or int32; the program ends when memory does. */
float *golden_floats(const struct tensor_view *tensor);
int32_t *golden_integers(const struct tensor_view *tensor);

/* Whether the official run rounded the rotary frequencies and the latent position table (modes f32r and bf16). */
bool golden_rounds_tables(const struct golden *golden);

/* The largest relative error allowed for a tensor: `bound` in the float32 modes. In bf16, where the recorded run itself
 * is only near the truth: 1.5 times its distance from the recorded float32 run, or 5e-2 where there is none. On a
 * backend that computes in bf16: 1.5 times the official code's own distance. */
double golden_bound(const struct golden *golden, const char *tensor, double bound);

/* |a - b| / |b| over n values. */
double relative_error(const float *a, const float *b, size_t n);

#endif
