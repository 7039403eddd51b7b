/* vae_blocks.c: see vae_blocks.h. */
#include "daemon/engine/model/vae_blocks.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Loading */

static void full_name(char *out, size_t bytes, const char *format, va_list arguments)
{
    int used = snprintf(out, bytes, "vae.");
    vsnprintf(out + used, bytes - (size_t)used, format, arguments);
}

bool vae_has(const struct vae_loader *loader, const char *format, ...)
{
    char name[160];
    va_list arguments;
    va_start(arguments, format);
    full_name(name, sizeof name, format, arguments);
    va_end(arguments);
    return checkpoint_tensor(loader->checkpoint, name) != NULL;
}

int vae_load_conv(struct vae_loader *loader, struct vae_conv *conv, int in, int out, struct vae_kernel_size size,
                  const char *format, ...)
{
    char name[160];
    va_list arguments;
    va_start(arguments, format);
    full_name(name, sizeof name, format, arguments);
    va_end(arguments);

    struct conv_source source;
    int code = checkpoint_conv(loader->checkpoint, name, &source, loader->error);
    if (code < 0)
        return code;
    if (source.in_channels != in || (out && source.out_channels != out) || source.kernel_t != size.t ||
        source.kernel_h != size.h || source.kernel_w != size.w)
        return error_set(loader->error, ERROR_BAD_FILE,
                         "%s is a %dx%dx%d convolution from %d to %d channels, expected %dx%dx%d from %d to %d", name,
                         source.kernel_t, source.kernel_h, source.kernel_w, source.in_channels, source.out_channels,
                         size.t, size.h, size.w, in, out ? out : source.out_channels);
    conv->in = in;
    conv->out = source.out_channels;
    conv->kernel_t = size.t;
    conv->kernel_h = size.h;
    conv->kernel_w = size.w;
    conv->cache = size.t > 1 ? loader->network->caches++ : -1;
    if (size.t * size.h * size.w > 1)
        return loader->kernels->conv_open(loader->kernels, &conv->conv, &source, loader->error);
    struct linear_source matrix = {
        .format = source.format,
        .out_features = source.out_channels,
        .in_features = source.in_channels,
        .data = source.weight,
        .tensor_scale = 1,
        .bias = source.bias,
        .bias_format = source.format,
    };
    return loader->kernels->linear_open(loader->kernels, &conv->pointwise, &matrix, loader->error);
}

int vae_load_norm(struct vae_loader *loader, struct vae_norm *norm, int channels, const char *format, ...)
{
    char name[160];
    va_list arguments;
    va_start(arguments, format);
    full_name(name, sizeof name, format, arguments);
    va_end(arguments);

    size_t bytes = (size_t)channels * sizeof(float);
    float *values = malloc(bytes);
    if (!values)
        return error_set(loader->error, ERROR_NO_MEMORY, "vae: out of memory for %s", name);
    int code = checkpoint_vector(loader->checkpoint, name, channels, values, loader->error);
    void *memory = NULL;
    if (code == 0)
        code = loader->kernels->memory_alloc(loader->kernels, &memory, bytes, loader->error);
    if (code == 0) {
        loader->kernels->param_upload(loader->kernels, memory, values, (size_t)channels);
        norm->gamma = memory;
        norm->channels = channels;
    }
    free(values);
    return code;
}

static const struct vae_kernel_size cube = {3, 3, 3}, point = {1, 1, 1};

int vae_load_residual(struct vae_loader *loader, struct vae_residual *block, int in, const char *name)
{
    int status;
    if ((status = vae_load_norm(loader, &block->norm_in, in, "%s.residual.0.gamma", name)) < 0 ||
        (status = vae_load_conv(loader, &block->conv_in, in, 0, cube, "%s.residual.2", name)) < 0)
        return status;
    int out = block->conv_in.out;
    if ((status = vae_load_norm(loader, &block->norm_out, out, "%s.residual.3.gamma", name)) < 0 ||
        (status = vae_load_conv(loader, &block->conv_out, out, out, cube, "%s.residual.6", name)) < 0)
        return status;
    block->has_shortcut = in != out;
    if (block->has_shortcut)
        status = vae_load_conv(loader, &block->shortcut, in, out, point, "%s.shortcut", name);
    return status;
}

int vae_load_attention(struct vae_loader *loader, struct vae_attention *block, int channels, const char *name)
{
    int status;
    if ((status = vae_load_norm(loader, &block->norm, channels, "%s.norm.gamma", name)) < 0 ||
        (status = vae_load_conv(loader, &block->qkv, channels, 3 * channels, point, "%s.to_qkv", name)) < 0)
        return status;
    return vae_load_conv(loader, &block->proj, channels, channels, point, "%s.proj", name);
}

int vae_load_stage(struct vae_loader *loader, struct vae_stage *stage, int in, const char *list, const char *inner,
                   int index)
{
    char name[96];
    int code;
    stage->in = stage->out = in;
    for (int j = 0;; j++) {
        snprintf(name, sizeof name, "%s.%d.%s.%d", list, index, inner, j);
        if (!vae_has(loader, "%s.residual.0.gamma", name))
            break;
        if (j == VAE_MAX_RESIDUALS)
            return error_set(loader->error, ERROR_BAD_FILE, "vae.%s.%d has more than %d residual blocks", list, index,
                             VAE_MAX_RESIDUALS);
        if ((code = vae_load_residual(loader, &stage->residual[j], stage->out, name)) < 0)
            return code;
        stage->out = stage->residual[j].conv_in.out;
        stage->residuals++;
    }
    if (!stage->residuals)
        return error_set(loader->error, ERROR_BAD_FILE, "vae.%s.%d has no residual blocks", list, index);
    stage->has_resample = vae_has(loader, "%s.resample.1.weight", name);
    stage->has_time = stage->has_resample && vae_has(loader, "%s.time_conv.weight", name);
    if (stage->has_resample && (code = vae_load_conv(loader, &stage->resample, stage->out, stage->out,
                                                     (struct vae_kernel_size){1, 3, 3}, "%s.resample.1", name)) < 0)
        return code;
    if (stage->has_time && (code = vae_load_conv(loader, &stage->time, stage->out, 0,
                                                 (struct vae_kernel_size){3, 1, 1}, "%s.time_conv", name)) < 0)
        return code;
    return 0;
}

static void conv_close(struct vae_conv *conv, struct kernels *kernels)
{
    if (conv->conv)
        kernels->conv_close(kernels, conv->conv);
    if (conv->pointwise)
        kernels->linear_close(kernels, conv->pointwise);
}

static void residual_close(struct vae_residual *block, struct kernels *kernels)
{
    kernels->memory_free(kernels, block->norm_in.gamma);
    kernels->memory_free(kernels, block->norm_out.gamma);
    conv_close(&block->conv_in, kernels);
    conv_close(&block->conv_out, kernels);
    conv_close(&block->shortcut, kernels);
}

void vae_network_close(struct vae_network *network, struct kernels *kernels)
{
    conv_close(&network->latent_conv, kernels);
    conv_close(&network->first, kernels);
    residual_close(&network->middle_in, kernels);
    residual_close(&network->middle_out, kernels);
    kernels->memory_free(kernels, network->middle_attention.norm.gamma);
    conv_close(&network->middle_attention.qkv, kernels);
    conv_close(&network->middle_attention.proj, kernels);
    for (int s = 0; s < VAE_MAX_STAGES; s++) {
        for (int j = 0; j < VAE_MAX_RESIDUALS; j++)
            residual_close(&network->stage[s].residual[j], kernels);
        conv_close(&network->stage[s].resample, kernels);
        conv_close(&network->stage[s].time, kernels);
    }
    kernels->memory_free(kernels, network->head_norm.gamma);
    conv_close(&network->head, kernels);
}

/* Running */

struct vae_frame vae_frame_take(struct vae_pass *pass, int height, int width, int channels)
{
    struct vae_frame x = {.height = height, .width = width, .channels = channels};
    x.at = x.piece = workspace_take(&pass->workspace, vae_frame_elements(&x));
    return x;
}

void vae_frame_release(struct vae_pass *pass, struct vae_frame *x)
{
    if (x->piece != VAE_BORROWED)
        workspace_give(&pass->workspace, x->piece);
    x->piece = VAE_BORROWED;
}

static act *cache_at(const struct vae_pass *pass, const struct vae_cache *cache, int frame)
{
    return act_at(pass->kernels, pass->cache_memory, cache->at + (size_t)frame * cache->frame_elements);
}

void vae_cache_push(struct vae_pass *pass, const struct vae_conv *conv, size_t x, size_t frame_elements, int capacity)
{
    if (pass->latent_frames == 1)
        return;
    struct vae_cache *cache = &pass->cache[conv->cache];
    if (!cache->frame_elements) {
        cache->frame_elements = frame_elements;
        cache->at = pass->cache_elements;
        size_t elements = (size_t)capacity * frame_elements;
        pass->cache_elements += (elements + WORKSPACE_ALIGNMENT - 1) / WORKSPACE_ALIGNMENT * WORKSPACE_ALIGNMENT;
    }
    if (cache->frames == capacity) {
        for (int i = 1; i < capacity; i++)
            VAE_RUN(pass, copy, cache_at(pass, cache, i - 1), cache_at(pass, cache, i), frame_elements);
        cache->frames--;
    }
    VAE_RUN(pass, copy, cache_at(pass, cache, cache->frames), vae_at(pass, x), frame_elements);
    cache->frames++;
}

static void pointwise(struct vae_pass *pass, const struct vae_conv *conv, const struct vae_frame *x, size_t out,
                      bool add)
{
    VAE_RUN(pass, linear, conv->pointwise, vae_at(pass, x->at), x->height * x->width, vae_at(pass, out), add);
}

void vae_conv_causal(struct vae_pass *pass, const struct vae_conv *conv, const struct vae_frame *x, size_t out,
                     bool add)
{
    struct vae_cache *cache = &pass->cache[conv->cache];
    struct conv_call call = {
        .frames = 1,
        .height = x->height,
        .width = x->width,
        .stride_t = 1,
        .stride_h = 1,
        .stride_w = 1,
        .pad_top = conv->kernel_h / 2,
        .pad_bottom = conv->kernel_h / 2,
        .pad_left = conv->kernel_w / 2,
        .pad_right = conv->kernel_w / 2,
        .add = add,
    };
    if (vae_is_due(pass)) {
        call.x = vae_at(pass, x->at);
        call.past_frames = cache->frames;
        call.past = cache->frames ? cache_at(pass, cache, 0) : NULL;
        call.out = vae_at(pass, out);
    }
    VAE_RUN(pass, conv, conv->conv, &call);
    vae_cache_push(pass, conv, x->at, vae_frame_elements(x), conv->kernel_t - 1);
}

void vae_norm_silu(struct vae_pass *pass, const struct vae_norm *norm, const struct vae_frame *x, size_t out)
{
    VAE_RUN(pass, channel_norm, vae_at(pass, x->at), (size_t)x->height * (size_t)x->width, x->channels, norm->gamma,
            true, vae_at(pass, out));
}

/* x + conv(silu(norm(conv(silu(norm(x)))))). With a shortcut x itself is not needed after its normalisation, so that
 * happens in place; three frames are alive at most. */
void vae_residual_run(struct vae_pass *pass, const struct vae_residual *block, struct vae_frame *x)
{
    struct vae_frame normed = *x, sum = *x;
    if (block->has_shortcut) {
        sum = vae_frame_take(pass, x->height, x->width, block->shortcut.out);
        pointwise(pass, &block->shortcut, x, sum.at, false);
    } else {
        normed = vae_frame_take(pass, x->height, x->width, x->channels);
    }
    vae_norm_silu(pass, &block->norm_in, x, normed.at);
    struct vae_frame y = vae_frame_take(pass, x->height, x->width, block->conv_in.out);
    vae_conv_causal(pass, &block->conv_in, &normed, y.at, false);
    vae_frame_release(pass, &normed);
    vae_norm_silu(pass, &block->norm_out, &y, y.at);
    vae_conv_causal(pass, &block->conv_out, &y, sum.at, true);
    vae_frame_release(pass, &y);
    *x = sum;
    vae_block_end(pass);
}

/* One head of all channels over the cells of one frame. */
void vae_attention_run(struct vae_pass *pass, const struct vae_attention *block, struct vae_frame *x)
{
    int cells = x->height * x->width, channels = x->channels;
    struct vae_frame y = vae_frame_take(pass, x->height, x->width, channels);
    struct vae_frame qkv = vae_frame_take(pass, x->height, x->width, 3 * channels);
    VAE_RUN(pass, channel_norm, vae_at(pass, x->at), (size_t)cells, channels, block->norm.gamma, false,
            vae_at(pass, y.at));
    pointwise(pass, &block->qkv, &y, qkv.at, false);
    if (vae_is_due(pass)) {
        struct attention problem = {
            .q = vae_at(pass, qkv.at),
            .q_rows = cells,
            .q_stride = 3 * channels,
            .heads = 1,
            .kv_heads = 1,
            .head_dim = channels,
            .scale = (float)(1.0 / sqrt(channels)),
            .segments = 1,
            .segment = {{
                .keys = vae_at(pass, qkv.at + (size_t)channels),
                .values = vae_at(pass, qkv.at + 2 * (size_t)channels),
                .rows = cells,
                .stride = 3 * channels,
            }},
            .out = vae_at(pass, y.at),
            .out_stride = channels,
        };
        pass->kernels->attention(pass->kernels, &problem, 1);
    }
    vae_frame_release(pass, &qkv);
    pointwise(pass, &block->proj, &y, x->at, true);
    vae_frame_release(pass, &y);
    vae_block_end(pass);
}

void vae_middle_run(struct vae_pass *pass, struct vae_frame *x)
{
    vae_residual_run(pass, &pass->network->middle_in, x);
    vae_attention_run(pass, &pass->network->middle_attention, x);
    vae_residual_run(pass, &pass->network->middle_out, x);
}
