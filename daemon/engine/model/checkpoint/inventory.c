/* inventory.c: see inventory.h. Names and shapes: the official release; quantised linears
 * come as .qweight and scales. */
#include "daemon/engine/model/checkpoint/inventory.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "protocol/latent_shape.h"

enum { TIMESTEP_FREQUENCIES = 256, VAE_PATCH_CHANNELS = 12, NAME_BYTES = 160 };

struct check {
    const struct tensor_table *tensors;
    struct inventory *inventory;
    struct error *error;
    int result; /* the first error; later checks do nothing then */
};

static bool is_there(struct check *check, const char *name, const char *suffix)
{
    char full[NAME_BYTES + 16];
    snprintf(full, sizeof full, "%s%s", name, suffix);
    return tensor_table_find(check->tensors, full) != NULL;
}

static void count(struct check *check, bool found, const char *name)
{
    if (found)
        check->inventory->found++;
    else if (check->inventory->missing++ < INVENTORY_NAMES_SHOWN)
        notes_add(&check->inventory->missing_names, "%s", name);
}

enum bias { NO_BIAS, WITH_BIAS };

static void linear(struct check *check, int out, int in, enum bias bias, const char *format, ...)
    __attribute__((format(printf, 5, 6)));
static void vector(struct check *check, int n, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void linear(struct check *check, int out, int in, enum bias bias, const char *format, ...)
{
    char name[NAME_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    if (check->result)
        return;
    bool found = is_there(check, name, ".weight") || is_there(check, name, "." PART_CODES);
    count(check, found, name);
    if (bias == WITH_BIAS) {
        char bias_name[NAME_BYTES + 8];
        snprintf(bias_name, sizeof bias_name, "%s.bias", name);
        count(check, is_there(check, name, ".bias"), bias_name);
    }
    struct linear_source source;
    if (found)
        check->result = tensor_table_linear(check->tensors, name, out, in, &source, check->error);
}

/* A norm weight; `format` gives the whole name. */
static void vector(struct check *check, int n, const char *format, ...)
{
    char name[NAME_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    if (check->result)
        return;
    const struct tensor_view *tensor = tensor_table_find(check->tensors, name);
    count(check, tensor != NULL, name);
    if (tensor && tensor_elements(tensor) != (uint64_t)n)
        check->result = error_set(check->error, ERROR_BAD_FILE,
                                  "tensor \"%s\" has %llu elements where the configuration asks for %d", name,
                                  (unsigned long long)tensor_elements(tensor), n);
}

/* One of the two sets of weights of every layer: `suffix` is "" or "_moe_gen". */
static void decoder(struct check *check, const struct lance_config *c, const char *suffix)
{
    int kv = c->kv_heads * c->head_dim;
    for (int i = 0; i < c->layers; i++) {
        char layer[64];
        snprintf(layer, sizeof layer, "language_model.model.layers.%d", i);
        vector(check, c->hidden_size, "%s.input_layernorm%s.weight", layer, suffix);
        vector(check, c->hidden_size, "%s.post_attention_layernorm%s.weight", layer, suffix);
        linear(check, c->hidden_size, c->hidden_size, WITH_BIAS, "%s.self_attn.q_proj%s", layer, suffix);
        linear(check, kv, c->hidden_size, WITH_BIAS, "%s.self_attn.k_proj%s", layer, suffix);
        linear(check, kv, c->hidden_size, WITH_BIAS, "%s.self_attn.v_proj%s", layer, suffix);
        linear(check, c->hidden_size, c->hidden_size, NO_BIAS, "%s.self_attn.o_proj%s", layer, suffix);
        if (!c->lacks_head_norms) {
            vector(check, c->head_dim, "%s.self_attn.q_norm%s.weight", layer, suffix);
            vector(check, c->head_dim, "%s.self_attn.k_norm%s.weight", layer, suffix);
        }
        linear(check, c->intermediate_size, c->hidden_size, NO_BIAS, "%s.mlp%s.gate_proj", layer, suffix);
        linear(check, c->intermediate_size, c->hidden_size, NO_BIAS, "%s.mlp%s.up_proj", layer, suffix);
        linear(check, c->hidden_size, c->intermediate_size, NO_BIAS, "%s.mlp%s.down_proj", layer, suffix);
    }
    vector(check, c->hidden_size, "language_model.model.norm%s.weight", suffix);
}

static void understanding(struct check *check, const struct lance_config *c)
{
    linear(check, c->vocab_size, c->hidden_size, NO_BIAS, "language_model.model.embed_tokens");
    if (!c->has_tied_head)
        linear(check, c->vocab_size, c->hidden_size, NO_BIAS, "language_model.lm_head");
    decoder(check, c, "");
    char beyond[96];
    snprintf(beyond, sizeof beyond, "language_model.model.layers.%d.input_layernorm.weight", c->layers);
    if (!check->result && tensor_table_find(check->tensors, beyond))
        check->result = error_set(check->error, ERROR_BAD_FILE,
                                  "the weights have more layers than the %d that llm_config.json states", c->layers);
}

static void generation(struct check *check, const struct lance_config *c)
{
    decoder(check, c, "_moe_gen");
    linear(check, c->hidden_size, TIMESTEP_FREQUENCIES, WITH_BIAS, "time_embedder.mlp.0");
    linear(check, c->hidden_size, c->hidden_size, WITH_BIAS, "time_embedder.mlp.2");
    linear(check, c->hidden_size, LATENT_CHANNELS, WITH_BIAS, "vae2llm");
    linear(check, LATENT_CHANNELS, c->hidden_size, WITH_BIAS, "llm2vae");
}

static void vit(struct check *check, const struct lance_config *c)
{
    int hidden = c->vit.hidden_size, merged = hidden * c->spatial_merge_size * c->spatial_merge_size;
    linear(check, hidden, c->vit.in_channels * c->vit.temporal_patch_size * c->vit.patch_size * c->vit.patch_size,
           NO_BIAS, "vit_model.patch_embed.proj");
    for (int i = 0; i < c->vit.depth; i++) {
        char block[64];
        snprintf(block, sizeof block, "vit_model.blocks.%d", i);
        vector(check, hidden, "%s.norm1.weight", block);
        vector(check, hidden, "%s.norm2.weight", block);
        linear(check, 3 * hidden, hidden, WITH_BIAS, "%s.attn.qkv", block);
        linear(check, hidden, hidden, WITH_BIAS, "%s.attn.proj", block);
        linear(check, c->vit.intermediate_size, hidden, WITH_BIAS, "%s.mlp.gate_proj", block);
        linear(check, c->vit.intermediate_size, hidden, WITH_BIAS, "%s.mlp.up_proj", block);
        linear(check, hidden, c->vit.intermediate_size, WITH_BIAS, "%s.mlp.down_proj", block);
    }
    vector(check, hidden, "vit_model.merger.ln_q.weight");
    linear(check, merged, merged, WITH_BIAS, "vit_model.merger.mlp.0");
    linear(check, c->vit.out_hidden_size, merged, WITH_BIAS, "vit_model.merger.mlp.2");
}

static void convolution(struct check *check, const char *name, struct conv_source *source)
{
    *source = (struct conv_source){0};
    if (check->result)
        return;
    bool found = is_there(check, name, ".weight");
    count(check, found, name);
    if (found)
        check->result = tensor_table_conv(check->tensors, name, source, check->error);
}

/* The widths are nowhere but in the shapes; the rest of the VAE is checked when it is opened. */
static void vae(struct check *check, struct lance_config *c)
{
    struct conv_source conv1, conv2, encoder_first, encoder_last, decoder_first, decoder_last;
    convolution(check, "vae.conv1", &conv1);
    convolution(check, "vae.conv2", &conv2);
    convolution(check, "vae.encoder.conv1", &encoder_first);
    convolution(check, "vae.encoder.head.2", &encoder_last);
    convolution(check, "vae.decoder.conv1", &decoder_first);
    convolution(check, "vae.decoder.head.2", &decoder_last);
    if (check->result || check->inventory->missing)
        return;
    if (conv2.in_channels != LATENT_CHANNELS || decoder_first.in_channels != LATENT_CHANNELS ||
        conv1.in_channels != 2 * LATENT_CHANNELS || encoder_last.out_channels != 2 * LATENT_CHANNELS ||
        encoder_first.in_channels != VAE_PATCH_CHANNELS || decoder_last.out_channels != VAE_PATCH_CHANNELS)
        check->result =
            error_set(check->error, ERROR_UNSUPPORTED,
                      "VAE: not the Wan 2.2 VAE: it has %d latent channels and %d channels a patch, not %d and %d",
                      conv2.in_channels, encoder_first.in_channels, LATENT_CHANNELS, VAE_PATCH_CHANNELS);
    else if (decoder_first.out_channels != 4 * decoder_last.in_channels ||
             encoder_last.in_channels != 4 * encoder_first.out_channels)
        check->result = error_set(check->error, ERROR_UNSUPPORTED,
                                  "VAE: not the Wan 2.2 VAE: its deepest layers must be 4 times as wide as the first");
    c->vae.present = true;
    c->vae.latent_channels = LATENT_CHANNELS;
    c->vae.encoder_dim = encoder_first.out_channels;
    c->vae.decoder_dim = decoder_last.in_channels;
}

int inventory_check(const struct tensor_table *tensors, enum inventory_group group, struct lance_config *config,
                    struct inventory *inventory, struct error *error)
{
    memset(inventory, 0, sizeof *inventory);
    struct check check = {.tensors = tensors, .inventory = inventory, .error = error};
    switch (group) {
    case INVENTORY_UNDERSTANDING:
        understanding(&check, config);
        break;
    case INVENTORY_GENERATION:
        generation(&check, config);
        break;
    case INVENTORY_VIT:
        vit(&check, config);
        break;
    case INVENTORY_VAE:
        vae(&check, config);
        break;
    }
    return check.result;
}
