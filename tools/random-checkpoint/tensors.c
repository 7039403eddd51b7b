/* tensors.c: the list of tensors; values.c makes what is in them. Names and shapes: docs/LANCE.md section 2, and the
 * modules of the Wan 2.2 VAE. Deviations keep activations near 1 through all layers. */
#include "tools/random-checkpoint/tensors.h"

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/formats/weights.h"

/* What the builders below share: the first failure sticks. */
struct builder {
    struct tensor_list *list;
    uint64_t seed;
    enum form form;
    enum dtype dtype; /* of dense tensors */
    int result;
    struct error *error;
};

/* FNV-1a of the seed and a name. */
static uint64_t stream_key(uint64_t seed, const char *name)
{
    uint64_t hash = UINT64_C(14695981039346656037) ^ seed;
    hash *= UINT64_C(1099511628211);
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * UINT64_C(1099511628211);
    return hash;
}

/* Add a dense tensor [shape...] and return it until the next is added; NULL when there is no memory. */
static struct random_tensor *add(struct builder *b, const char *stream, const char *name, int dimensions,
                                 const uint64_t *shape, float mean, float deviation)
{
    struct tensor_list *list = b->list;
    if (!b->result && list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 256;
        struct random_tensor *tensors = realloc(list->tensors, capacity * sizeof *tensors);
        if (tensors) {
            list->tensors = tensors;
            list->capacity = capacity;
        } else {
            b->result = error_set(b->error, ERROR_NO_MEMORY, "no memory for a list of %zu tensors", capacity);
        }
    }
    if (b->result)
        return NULL;
    struct random_tensor *tensor = &list->tensors[list->count++];
    *tensor = (struct random_tensor){.dtype = b->dtype, .dimensions = dimensions, .key = stream_key(b->seed, stream),
                                     .mean = mean, .deviation = deviation};
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    memcpy(tensor->shape, shape, (size_t)dimensions * sizeof *shape);
    return tensor;
}

static struct random_tensor *vector(struct builder *b, int n, float mean, float deviation, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
static struct random_tensor *vector(struct builder *b, int n, float mean, float deviation, const char *format, ...)
{
    char name[128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    return add(b, name, name, 1, (const uint64_t[]){(uint64_t)n}, mean, deviation);
}

/* `name`.weight [out, in] of standard deviation gain / sqrt(in), and a bias if its deviation is not 0. */
static struct random_tensor *linear(struct builder *b, int out, int in, float gain, float bias, const char *name)
{
    char full[160];
    if (bias != 0)
        vector(b, out, 0, bias, "%s.bias", name);
    snprintf(full, sizeof full, "%s.weight", name);
    return add(b, name, full, 2, (const uint64_t[]){(uint64_t)out, (uint64_t)in}, 0, gain / sqrtf((float)in));
}

/* One of the layers that the 4-bit forms quantise. */
static void quantised(struct builder *b, int out, int in, float gain, float bias, const char *name)
{
    if (b->form == FORM_BF16) {
        struct random_tensor *tensor = linear(b, out, in, gain, bias, name);
        if (tensor)
            tensor->content = CONTENT_LEVELS;
        return;
    }
    const bool nvfp4 = b->form == FORM_NVFP4;
    const int group = nvfp4 ? 16 : b->form == FORM_AWQ_64 ? 64 : 128;
    const struct {
        const char *suffix;
        enum dtype dtype;
        int columns;
        enum content content;
    } parts[] = {
        {"." PART_CODES, DTYPE_U8, in / CODES_PER_BYTE, nvfp4 ? CONTENT_NVFP4_CODES : CONTENT_AWQ_CODES},
        {nvfp4 ? "." PART_SCALES_BF16 : "." PART_SCALES, DTYPE_BF16, in / group, CONTENT_SCALES},
        {nvfp4 ? "." PART_SCALES_FP8 : "." PART_ZEROS, DTYPE_U8, in / group,
         nvfp4 ? CONTENT_SCALES_FP8 : CONTENT_ZEROS},
    };
    if (bias != 0)
        vector(b, out, 0, bias, "%s.bias", name);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char full[160];
        snprintf(full, sizeof full, "%s%s", name, parts[i].suffix);
        struct random_tensor *tensor =
            add(b, name, full, 2, (const uint64_t[]){(uint64_t)out, (uint64_t)parts[i].columns}, 0,
                gain / sqrtf((float)in));
        if (!tensor)
            return;
        tensor->dtype = parts[i].dtype;
        tensor->content = parts[i].content;
        tensor->group = group;
    }
}

/* --- language model ------------------------------------------------------------------------- */

static void attention(struct builder *b, const struct sizes *s, const char *layer, const char *suffix)
{
    const int head = s->hidden / s->heads, kv = head * s->kv_heads;
    const struct {
        const char *name;
        int out;
        float gain, bias;
    } projections[] = {{"q_proj", s->hidden, 1, 0.3f}, {"k_proj", kv, 1, 0.3f}, {"v_proj", kv, 1, 0.3f},
                       {"o_proj", s->hidden, 0.9f, 0}};
    char name[128];
    for (size_t i = 0; i < sizeof projections / sizeof *projections; i++) {
        snprintf(name, sizeof name, "%s.self_attn.%s%s", layer, projections[i].name, suffix);
        quantised(b, projections[i].out, s->hidden, projections[i].gain, projections[i].bias, name);
    }
    vector(b, head, 1.3f, 0.2f, "%s.self_attn.q_norm%s.weight", layer, suffix);
    vector(b, head, 1.3f, 0.2f, "%s.self_attn.k_norm%s.weight", layer, suffix);
}

static void layer(struct builder *b, const struct sizes *s, int number, const char *suffix)
{
    char prefix[64], name[128];
    snprintf(prefix, sizeof prefix, "language_model.model.layers.%d", number);
    attention(b, s, prefix, suffix);
    snprintf(name, sizeof name, "%s.mlp%s.gate_proj", prefix, suffix);
    quantised(b, s->inter, s->hidden, 1, 0, name);
    snprintf(name, sizeof name, "%s.mlp%s.up_proj", prefix, suffix);
    quantised(b, s->inter, s->hidden, 1, 0, name);
    snprintf(name, sizeof name, "%s.mlp%s.down_proj", prefix, suffix);
    quantised(b, s->hidden, s->inter, 1.2f, 0, name);
    vector(b, s->hidden, 1, 0.15f, "%s.input_layernorm%s.weight", prefix, suffix);
    vector(b, s->hidden, 1, 0.15f, "%s.post_attention_layernorm%s.weight", prefix, suffix);
}

int tensors_of_language_model(struct tensor_list *list, const struct sizes *s, enum form form, uint64_t seed,
                              struct error *error)
{
    struct builder b = {.list = list, .seed = seed, .form = form, .dtype = DTYPE_BF16, .error = error};
    const uint64_t hidden = (uint64_t)s->hidden, table[] = {VOCABULARY, hidden};
    const char embedding[] = "language_model.model.embed_tokens.weight", head[] = "language_model.lm_head.weight";
    add(&b, embedding, embedding, 2, table, 0, 0.5f);
    struct random_tensor *lm_head = add(&b, head, head, 2, table, 0, 1 / sqrtf((float)s->hidden));
    /* The token that ends an answer has logit 0, which is never the greatest: answers have full length. */
    if (lm_head) {
        lm_head->apart.from = END_TOKEN * hidden;
        lm_head->apart.to = (END_TOKEN + 1) * hidden;
    }
    for (int i = 0; i < s->layers; i++) {
        layer(&b, s, i, "");
        layer(&b, s, i, "_moe_gen");
    }
    vector(&b, s->hidden, 1, 0.15f, "language_model.model.norm.weight");
    vector(&b, s->hidden, 1, 0.15f, "language_model.model.norm_moe_gen.weight");
    linear(&b, s->hidden, TIME_FREQUENCIES, 2.8f, 0.2f, "time_embedder.mlp.0");
    linear(&b, s->hidden, s->hidden, 2, 0.2f, "time_embedder.mlp.2");
    linear(&b, s->hidden, LATENT_CHANNELS, 1.6f, 0.2f, "vae2llm");
    linear(&b, LATENT_CHANNELS, s->hidden, 0.8f, 0.2f, "llm2vae");
    /* Part of the published file; every reader computes it anew. */
    add(&b, "latent_pos_embed", "latent_pos_embed.pos_embed", 2, (const uint64_t[]){LATENT_POSITIONS, hidden}, 0, 0.7f);
    return b.result;
}

/* --- ViT ------------------------------------------------------------------------------------------ */

int tensors_of_vit(struct tensor_list *list, const struct sizes *s, uint64_t seed, struct error *error)
{
    struct builder b = {.list = list, .seed = seed + 1, .dtype = DTYPE_BF16, .error = error};
    const int hidden = s->vit_hidden, merged = 4 * hidden;
    add(&b, "patch_embed", "patch_embed.proj.weight", 5, (const uint64_t[]){(uint64_t)hidden, 3, 2, 14, 14}, 0,
        1 / sqrtf(3 * 2 * 14 * 14));
    for (int i = 0; i < s->vit_depth; i++) {
        char block[32], name[128];
        snprintf(block, sizeof block, "blocks.%d", i);
        const struct {
            const char *name;
            int out, in;
            float gain;
        } layers[] = {{"attn.qkv", 3 * hidden, hidden, 1.5f}, {"attn.proj", hidden, hidden, 0.8f},
                      {"mlp.gate_proj", s->vit_inter, hidden, 1}, {"mlp.up_proj", s->vit_inter, hidden, 1},
                      {"mlp.down_proj", hidden, s->vit_inter, 1}};
        vector(&b, hidden, 1, 0.15f, "%s.norm1.weight", block);
        vector(&b, hidden, 1, 0.15f, "%s.norm2.weight", block);
        for (size_t l = 0; l < sizeof layers / sizeof *layers; l++) {
            snprintf(name, sizeof name, "%s.%s", block, layers[l].name);
            linear(&b, layers[l].out, layers[l].in, layers[l].gain, 0.1f, name);
        }
    }
    vector(&b, hidden, 1, 0.15f, "merger.ln_q.weight");
    linear(&b, merged, merged, 1, 0.1f, "merger.mlp.0");
    linear(&b, s->hidden, merged, 1, 0.1f, "merger.mlp.2");
    return b.result;
}

/* --- VAE --------------------------------------------------------------------------------------- */

/* A convolution [out, in, t, h, w], or [out, in, h, w] where t is 0. */
static struct random_tensor *convolution(struct builder *b, const char *name, int out, int in, int t, int h, int w,
                                         float gain)
{
    const uint64_t o = (uint64_t)out, i = (uint64_t)in, kernel[] = {(uint64_t)t, (uint64_t)h, (uint64_t)w};
    const uint64_t with_time[] = {o, i, kernel[0], kernel[1], kernel[2]}, flat[] = {o, i, kernel[1], kernel[2]};
    char full[160];
    vector(b, out, 0, 0.05f, "%s.bias", name);
    snprintf(full, sizeof full, "%s.weight", name);
    return add(b, name, full, t ? 5 : 4, t ? with_time : flat, 0,
               gain / sqrtf((float)in * (float)(t ? t : 1) * (float)(h * w)));
}

static void gamma_of(struct builder *b, const char *name, int channels, int axes)
{
    const uint64_t shape[] = {(uint64_t)channels, 1, 1, 1};
    add(b, name, name, axes, shape, 1, 0.15f);
}

static void residual_block(struct builder *b, const char *prefix, int in, int out)
{
    char name[128];
    snprintf(name, sizeof name, "%s.residual.0.gamma", prefix);
    gamma_of(b, name, in, 4);
    snprintf(name, sizeof name, "%s.residual.2", prefix);
    convolution(b, name, out, in, 3, 3, 3, 1);
    snprintf(name, sizeof name, "%s.residual.3.gamma", prefix);
    gamma_of(b, name, out, 4);
    snprintf(name, sizeof name, "%s.residual.6", prefix);
    convolution(b, name, out, out, 3, 3, 3, 0.7f); /* or the trunk would grow from block to block */
    snprintf(name, sizeof name, "%s.shortcut", prefix);
    if (in != out)
        convolution(b, name, out, in, 1, 1, 1, 1);
}

/* The deepest part, the same in encoder and decoder, and the head after it or before it. */
static void middle(struct builder *b, const char *half, int channels)
{
    char name[128];
    snprintf(name, sizeof name, "%s.middle.0", half);
    residual_block(b, name, channels, channels);
    snprintf(name, sizeof name, "%s.middle.1.norm.gamma", half);
    gamma_of(b, name, channels, 3);
    snprintf(name, sizeof name, "%s.middle.1.to_qkv", half);
    convolution(b, name, 3 * channels, channels, 0, 1, 1, 1);
    snprintf(name, sizeof name, "%s.middle.1.proj", half);
    convolution(b, name, channels, channels, 0, 1, 1, 0.7f);
    snprintf(name, sizeof name, "%s.middle.2", half);
    residual_block(b, name, channels, channels);
}

static void head(struct builder *b, const char *half, int channels, int out)
{
    char name[128];
    snprintf(name, sizeof name, "%s.head.0.gamma", half);
    gamma_of(b, name, channels, 4);
    snprintf(name, sizeof name, "%s.head.2", half);
    convolution(b, name, out, channels, 3, 3, 3, 0.8f);
}

static void encoder(struct builder *b, int dim)
{
    const int widths[] = {dim, dim, 2 * dim, 4 * dim, 4 * dim};
    char name[128];
    convolution(b, "encoder.conv1", dim, 12, 3, 3, 3, 1);
    for (int level = 0; level < 4; level++) {
        const int in = widths[level], out = widths[level + 1];
        for (int block = 0; block < 2; block++) {
            snprintf(name, sizeof name, "encoder.downsamples.%d.downsamples.%d", level, block);
            residual_block(b, name, block ? out : in, out);
        }
        snprintf(name, sizeof name, "encoder.downsamples.%d.downsamples.2.resample.1", level);
        if (level < 3)
            convolution(b, name, out, out, 0, 3, 3, 1);
        snprintf(name, sizeof name, "encoder.downsamples.%d.downsamples.2.time_conv", level);
        if (level == 1 || level == 2)
            convolution(b, name, out, out, 3, 1, 1, 0.9f);
    }
    middle(b, "encoder", widths[4]);
    head(b, "encoder", widths[4], 2 * LATENT_CHANNELS);
}

static void decoder(struct builder *b, int dim)
{
    const int widths[] = {4 * dim, 4 * dim, 4 * dim, 2 * dim, dim};
    char name[128];
    convolution(b, "decoder.conv1", widths[0], LATENT_CHANNELS, 3, 3, 3, 1);
    middle(b, "decoder", widths[0]);
    for (int level = 0; level < 4; level++) {
        const int in = widths[level], out = widths[level + 1];
        for (int block = 0; block < 3; block++) {
            snprintf(name, sizeof name, "decoder.upsamples.%d.upsamples.%d", level, block);
            residual_block(b, name, block ? out : in, out);
        }
        snprintf(name, sizeof name, "decoder.upsamples.%d.upsamples.3.resample.1", level);
        if (level < 3)
            convolution(b, name, out, out, 0, 3, 3, 1);
        snprintf(name, sizeof name, "decoder.upsamples.%d.upsamples.3.time_conv", level);
        if (level < 2)
            convolution(b, name, 2 * out, out, 3, 1, 1, 0.9f);
    }
    head(b, "decoder", widths[4], 12);
}

int tensors_of_vae(struct tensor_list *list, const struct sizes *s, uint64_t seed, struct error *error)
{
    struct builder b = {.list = list, .seed = seed + 2, .dtype = DTYPE_F32, .error = error};
    const int moments = 2 * LATENT_CHANNELS; /* mean, then log-variance, which is small in a trained VAE */
    encoder(&b, s->vae_encoder_dim);
    struct random_tensor *weight = convolution(&b, "conv1", moments, moments, 1, 1, 1, 1);
    if (weight) {
        struct random_tensor *bias = weight - 1;
        weight->apart.from = (uint64_t)LATENT_CHANNELS * (uint64_t)moments;
        weight->apart.to = (uint64_t)moments * (uint64_t)moments;
        weight->apart.deviation = 0.3f * weight->deviation;
        bias->apart.from = LATENT_CHANNELS;
        bias->apart.to = (uint64_t)moments;
        bias->apart.mean = -3;
        bias->apart.deviation = bias->deviation;
    }
    convolution(&b, "conv2", LATENT_CHANNELS, LATENT_CHANNELS, 1, 1, 1, 1);
    decoder(&b, s->vae_decoder_dim);
    return b.result;
}

uint64_t random_tensor_bytes(const struct random_tensor *tensor)
{
    uint64_t bytes = dtype_bytes(tensor->dtype);
    for (int i = 0; i < tensor->dimensions; i++)
        bytes *= tensor->shape[i];
    return bytes;
}
