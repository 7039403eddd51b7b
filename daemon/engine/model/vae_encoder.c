/* vae_encoder.c: from one or four frames of pixels to one latent frame.
 *
 * Stages follow Encoder3d of the official modeling/vae/wan/vae2_2.py. A stage asks the one
 * before it for the frames it needs: one for the first latent frame, two for each later
 * one where the frame rate is halved, so only one frame at a time exists at full
 * resolution.
 */
#include "daemon/engine/model/vae_blocks.h"

int vae_encoder_load(struct vae_loader *loader, int latent_channels)
{
    struct vae_network *network = loader->network;
    const struct vae_kernel_size cube = {3, 3, 3}, point = {1, 1, 1};
    int code;
    if ((code = vae_load_conv(loader, &network->first, VAE_PATCH_CHANNELS, 0, cube, "encoder.conv1")) < 0)
        return code;
    int width = network->first.out;
    int spatial = VAE_PATCH, temporal = 1;
    while (vae_has(loader, "encoder.downsamples.%d.downsamples.0.residual.0.gamma", network->stages)) {
        if (network->stages == VAE_MAX_STAGES)
            return error_set(loader->error, ERROR_BAD_FILE, "vae.encoder has more than %d stages", VAE_MAX_STAGES);
        struct vae_stage *stage = &network->stage[network->stages];
        if ((code = vae_load_stage(loader, stage, width, "encoder.downsamples", "downsamples", network->stages)) < 0)
            return code;
        network->stages++;
        width = stage->out;
        int factor = (stage->has_resample ? 4 : 1) * (stage->has_time ? 2 : 1);
        if (stage->in * factor % stage->out || (stage->has_time && stage->time.out != stage->out))
            return error_set(loader->error, ERROR_BAD_FILE,
                             "vae.encoder.downsamples.%d has widths that do not fit: %d to %d", network->stages - 1,
                             stage->in, stage->out);
        spatial *= stage->has_resample ? 2 : 1;
        temporal *= stage->has_time ? 2 : 1;
    }
    if (spatial != VAE_SPATIAL_STRIDE || temporal != VAE_TEMPORAL_STRIDE)
        return error_set(loader->error, ERROR_BAD_FILE,
                         "vae.encoder shrinks %d times in space and %d times in time, expected %d and %d", spatial,
                         temporal, VAE_SPATIAL_STRIDE, VAE_TEMPORAL_STRIDE);
    if ((code = vae_load_residual(loader, &network->middle_in, width, "encoder.middle.0")) < 0 ||
        (code = vae_load_attention(loader, &network->middle_attention, width, "encoder.middle.1")) < 0 ||
        (code = vae_load_residual(loader, &network->middle_out, width, "encoder.middle.2")) < 0 ||
        (code = vae_load_norm(loader, &network->head_norm, width, "encoder.head.0.gamma")) < 0 ||
        (code = vae_load_conv(loader, &network->head, width, 2 * latent_channels, cube, "encoder.head.2")) < 0)
        return code;
    return vae_load_conv(loader, &network->latent_conv, 2 * latent_channels, 2 * latent_channels, point, "conv1");
}

/* The next input frame, cut into patches, through the first convolution. */
static void input_frame(struct vae_pass *pass, int height, int width, size_t out)
{
    struct vae_frame image = vae_frame_take(pass, height * VAE_PATCH, width * VAE_PATCH, 3);
    struct vae_frame patches = vae_frame_take(pass, height, width, VAE_PATCH_CHANNELS);
    size_t pixels = vae_frame_elements(&image);
    VAE_RUN(pass, upload, vae_at(pass, image.at), pass->pixels_in, pixels);
    VAE_RUN(pass, patchify, vae_at(pass, image.at), 1, height, width, vae_at(pass, patches.at));
    vae_frame_release(pass, &image);
    vae_conv_causal(pass, &pass->network->first, &patches, out, false);
    vae_frame_release(pass, &patches);
    if (!pass->rehearsal)
        pass->pixels_in += pixels;
    vae_block_end(pass);
}

static void shrink(struct vae_pass *pass, const struct vae_stage *stage, const struct vae_frame *x, size_t out,
                   bool add)
{
    if (!vae_is_due(pass))
        return;
    struct conv_call call = {
        .x = vae_at(pass, x->at),
        .frames = 1,
        .height = x->height,
        .width = x->width,
        .stride_t = 1,
        .stride_h = 2,
        .stride_w = 2,
        .pad_bottom = 1,
        .pad_right = 1,
        .add = add,
        .out = vae_at(pass, out),
    };
    pass->kernels->conv(pass->kernels, stage->resample.conv, &call);
}

/* Halves the frame rate: out += the pair at `pair`, convolved together with the frame before it. The very first frame
 * passes as it is. */
static void halve_frames(struct vae_pass *pass, const struct vae_stage *stage, size_t pair, int height, int width,
                         size_t out)
{
    size_t elements = (size_t)height * (size_t)width * (size_t)stage->out;
    if (pass->frame == 0) {
        VAE_RUN(pass, add, vae_at(pass, pair), elements, vae_at(pass, out));
        vae_cache_push(pass, &stage->time, pair, elements, 1);
        return;
    }
    if (vae_is_due(pass)) {
        const struct vae_cache *cache = &pass->cache[stage->time.cache];
        struct conv_call call = {
            .x = vae_at(pass, pair),
            .past = act_at(pass->kernels, pass->cache_memory, cache->at),
            .past_frames = 1,
            .no_time_padding = true,
            .frames = 2,
            .height = height,
            .width = width,
            .stride_t = 2,
            .stride_h = 1,
            .stride_w = 1,
            .add = true,
            .out = vae_at(pass, out),
        };
        pass->kernels->conv(pass->kernels, stage->time.conv, &call);
    }
    vae_cache_push(pass, &stage->time, pair + elements, elements, 1);
}

/* Writes the next frame of stage `index` to `out`: [height, width, stage width]. Stage -1 is the input. */
static void run_stage(struct vae_pass *pass, int index, int height, int width, size_t out)
{
    if (index < 0) {
        input_frame(pass, height, width, out);
        return;
    }
    const struct vae_stage *stage = &pass->network->stage[index];
    int factor_s = stage->has_resample ? 2 : 1, factor_t = stage->has_time ? 2 : 1;
    int frames = pass->frame ? factor_t : 1;
    struct vae_frame in = {.height = factor_s * height, .width = factor_s * width, .channels = stage->in};
    size_t in_elements = vae_frame_elements(&in), out_elements = (size_t)height * (size_t)width * (size_t)stage->out;
    size_t piece = in.at = workspace_take(&pass->workspace, (size_t)frames * in_elements);
    for (int f = 0; f < frames; f++)
        run_stage(pass, index - 1, in.height, in.width, in.at + (size_t)f * in_elements);

    /* The shortcut goes into the output first, so that the input may be changed in place. */
    VAE_RUN(pass, zero, vae_at(pass, out), out_elements);
    VAE_RUN(pass, average_down, vae_at(pass, in.at), frames, in.height, in.width, stage->in, stage->out, factor_t,
            factor_s, vae_at(pass, out));
    size_t pair = stage->has_time ? workspace_take(&pass->workspace, (size_t)frames * out_elements) : 0;
    for (int f = 0; f < frames; f++) {
        struct vae_frame x = in;
        x.at += (size_t)f * in_elements;
        x.piece = f == frames - 1 ? piece : VAE_BORROWED;
        for (int j = 0; j < stage->residuals; j++)
            vae_residual_run(pass, &stage->residual[j], &x);
        if (stage->has_time)
            shrink(pass, stage, &x, pair + (size_t)f * out_elements, false);
        else if (stage->has_resample)
            shrink(pass, stage, &x, out, true);
        else
            VAE_RUN(pass, add, vae_at(pass, x.at), out_elements, vae_at(pass, out));
        vae_frame_release(pass, &x);
    }
    if (stage->has_time) {
        halve_frames(pass, stage, pair, height, width, out);
        workspace_give(&pass->workspace, pair);
    }
    if (stage->has_resample)
        vae_block_end(pass);
}

void vae_encoder_run(struct vae_pass *pass)
{
    const struct vae_network *network = pass->network;
    int height = pass->latent_height, width = pass->latent_width;
    struct vae_frame x = vae_frame_take(pass, height, width, network->head_norm.channels);
    run_stage(pass, network->stages - 1, height, width, x.at);
    vae_middle_run(pass, &x);
    vae_norm_silu(pass, &network->head_norm, &x, x.at);
    struct vae_frame moments = vae_frame_take(pass, height, width, network->head.out);
    vae_conv_causal(pass, &network->head, &x, moments.at, false);
    vae_frame_release(pass, &x);
    struct vae_frame latent = vae_frame_take(pass, height, width, network->head.out);
    VAE_RUN(pass, linear, network->latent_conv.pointwise, vae_at(pass, moments.at), height * width,
            vae_at(pass, latent.at), false);
    VAE_RUN(pass, download, pass->host_latent, vae_at(pass, latent.at), vae_frame_elements(&latent));
    vae_frame_release(pass, &moments);
    vae_frame_release(pass, &latent);
    vae_block_end(pass);
}
