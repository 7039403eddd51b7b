/* load.c: models: what lance.h says about opening, closing and describing one. */
#include "base/clock.h"
#include "base/sha256.h"
#include "daemon/engine/lance_model.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "daemon/engine/model/decoder.h"
#include "daemon/engine/model/latent_tokens.h"
#include "daemon/engine/model/prefix_cache.h"
#include "daemon/engine/model/tokenizer/tokenizer.h"
#include "daemon/engine/model/vae.h"
#include "daemon/engine/model/vit.h"
#include "daemon/engine/preview.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The last component of a path, without trailing slashes. */
static void name_of(const char *path, char *name, size_t size)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    snprintf(name, size, "%.*s", (int)(end - start), path + start);
}

static int open_parts(struct lance_model *m, const struct lance_model_options *options, struct error *error)
{
    const struct checkpoint_options files = {.model_dir = options->model_dir,
                                             .vae_path = options->vae_path,
                                             .vit_path = options->vit_path,
                                             .identifies = true,
                                             .cache_folder = options->cache_folder};
    int code = checkpoint_open(&m->checkpoint, &files, error);
    if (code)
        return code;
    const bool rounded = options->position_tables == LANCE_TABLES_AUTO
                             ? !checkpoint_config(m->checkpoint)->tables_float32
                             : options->position_tables == LANCE_TABLES_BF16;
    const struct decoder_options parts = {rounded, options->byte_head};
    m->round_tables = rounded;
    code = tokenizer_open(&m->tokenizer, checkpoint_directory(m->checkpoint), error);
    if (!code)
        code = decoder_open(&m->decoder, m->kernels, m->checkpoint, &parts, error);
    if (!code)
        code = prefix_cache_open(&m->prefix_cache, m->decoder, options->prefix_cache_bytes, error);
    if (!code && checkpoint_can_generate(m->checkpoint)) {
        code = latent_tokens_open(&m->latent_tokens, m->kernels, m->checkpoint, rounded, error);
        if (!code)
            code = vae_open(&m->vae, m->kernels, m->checkpoint, error);
        atomic_store(&m->colours_there, preview_known_colours(checkpoint_config(m->checkpoint), &m->colours));
    }
    if (!code && checkpoint_can_see(m->checkpoint))
        code = vit_open(&m->vit, m->kernels, m->checkpoint, rounded, error);
    return code;
}

/* Name what computes: the files, and what was made of them that changes results. */
static void name_model(struct lance_model *m)
{
    if (decoder_byte_head_bytes(m->decoder) == 0) {
        snprintf(m->hash, sizeof m->hash, "%s", checkpoint_hash(m->checkpoint));
        return;
    }
    char text[sizeof m->hash + 16];
    const int length = snprintf(text, sizeof text, "%s int8 head", checkpoint_hash(m->checkpoint));
    sha256_of(text, (size_t)length, m->hash);
}

int lance_model_open(struct lance_model **out, struct kernels *kernels, const struct lance_model_options *options,
                     struct error *error)
{
    *out = NULL;
    struct lance_model *m = calloc(1, sizeof *m);
    if (!m)
        return error_set(error, ERROR_NO_MEMORY, "model: no memory");
    const double start = clock_seconds();
    const uint64_t before = kernels->memory_in_use(kernels);
    m->kernels = kernels;
    m->memory_limit_bytes = options->memory_limit_bytes;
    name_of(options->model_dir, m->name, sizeof m->name);
    int code = open_parts(m, options, error);
    if (!code)
        code = kernels->sync(kernels, error);
    if (!code)
        code = checkpoint_identify(m->checkpoint, error);
    if (code) {
        lance_model_close(m);
        return code;
    }
    if (!kernels->host_memory)
        checkpoint_let_go(m->checkpoint, "");
    if (decoder_byte_head_bytes(m->decoder) > 0)
        checkpoint_let_go(m->checkpoint, "language_model.lm_head.");
    m->weight_bytes = kernels->memory_in_use(kernels) - before;
    if (kernels->host_memory && m->weight_bytes < checkpoint_bytes(m->checkpoint)) /* most is used where the files are
                                                                                    * mapped */
        m->weight_bytes = checkpoint_bytes(m->checkpoint) + decoder_byte_head_bytes(m->decoder);
    name_model(m);
    m->load_seconds = clock_seconds() - start;
    *out = m;
    return 0;
}

void lance_model_close(struct lance_model *m)
{
    if (!m)
        return;
    vit_close(m->vit);
    vae_close(m->vae);
    latent_tokens_close(m->latent_tokens);
    prefix_cache_close(m->prefix_cache);
    decoder_close(m->decoder);
    tokenizer_close(m->tokenizer);
    checkpoint_close(m->checkpoint);
    free(m);
}

int lance_model_check(const struct lance_model_options *options, struct error *error)
{
    const struct checkpoint_options files = {
        .model_dir = options->model_dir, .vae_path = options->vae_path, .vit_path = options->vit_path};
    struct checkpoint *checkpoint = NULL;
    struct tokenizer *tokenizer = NULL;
    int code = checkpoint_open(&checkpoint, &files, error);
    if (!code)
        code = tokenizer_open(&tokenizer, checkpoint_directory(checkpoint), error);
    tokenizer_close(tokenizer);
    checkpoint_close(checkpoint);
    return code;
}

static unsigned tasks_of(const struct lance_model *m)
{
    unsigned tasks = 0;
    for (int task = 0; task < LANCE_TASK_COUNT; task++) {
        bool sees = task_answers(task) || task_edits(task);
        bool generates = !task_answers(task);
        if ((!sees || m->vit) && (!generates || m->latent_tokens))
            tasks |= 1u << task;
    }
    return tasks;
}

void lance_model_info(const struct lance_model *m, struct lance_model_info *info)
{
    const struct lance_config *config = checkpoint_config(m->checkpoint);
    *info = (struct lance_model_info){
        .tasks = tasks_of(m),
        .weight_bytes = m->weight_bytes,
        .hidden_size = config->hidden_size,
        .layers = config->layers,
        .latent_channels = config->vae.latent_channels,
        .spatial_stride = VAE_SPATIAL_STRIDE,
        .load_seconds = m->load_seconds,
    };
    info->byte_head = decoder_byte_head_bytes(m->decoder) > 0;
    if (m->vit && !m->kernels->host_memory)
        info->vit_stays = vit_stays(m->vit, &info->vit_bytes);
    snprintf(info->name, sizeof info->name, "%s", m->name);
    snprintf(info->kind, sizeof info->kind, "%s", checkpoint_kind(m->checkpoint));
    snprintf(info->hash, sizeof info->hash, "%s", m->hash);
}

const char *lance_model_warnings(const struct lance_model *m)
{
    return checkpoint_warnings(m->checkpoint);
}

void lance_model_limit_memory(struct lance_model *m, uint64_t bytes)
{
    m->memory_limit_bytes = bytes;
}

void lance_model_limit_host_memory(struct lance_model *m, uint64_t bytes)
{
    m->host_limit_bytes = bytes;
}

void lance_model_prefixes(const struct lance_model *m, struct lance_prefixes *out)
{
    struct prefix_cache_counts counts;
    prefix_cache_count(m->prefix_cache, &counts);
    *out = (struct lance_prefixes){
        .hits = counts.hits,
        .misses = counts.misses,
        .evictions = counts.evictions,
        .blocks = counts.blocks,
        .bytes = counts.bytes,
        .limit_bytes = counts.limit_bytes,
    };
}

void lance_model_held(const struct lance_model *m, struct lance_held *out)
{
    *out = (struct lance_held){
        .weight_bytes = m->weight_bytes,
        .prefix_bytes = prefix_cache_idle_bytes(m->prefix_cache),
        .job_bytes = m->held_bytes,
        .promised_bytes = m->promised_bytes,
    };
}
