/* vae_decoder.c: from one latent frame to one or four frames of pixels.
 *
 * Stages follow Decoder3d of the official modeling/vae/wan/vae2_2.py. The first latent frame
 * stays a single frame; every later one is doubled by each stage that has a temporal
 * convolution. A stage hands its frames one by one to the next, so only one frame exists
 * at full resolution.
 */
#include "daemon/engine/model/vae_blocks.h"

int vae_decoder_load(struct vae_loader *loader, int *latent_channels)
{
    struct vae_network *network = loader->network;
    const struct lance_config *config = checkpoint_config(loader->checkpoint);
    const struct vae_kernel_size cube = {3, 3, 3}, point = {1, 1, 1};
    int code, latent = config->vae.latent_channels;
    *latent_channels = latent;
    if ((code = vae_load_conv(loader, &network->latent_conv, latent, latent, point, "conv2")) < 0 ||
        (code = vae_load_conv(loader, &network->first, latent, 0, cube, "decoder.conv1")) < 0)
        return code;
    int width = network->first.out;
    if ((code = vae_load_residual(loader, &network->middle_in, width, "decoder.middle.0")) < 0 ||
        (code = vae_load_attention(loader, &network->middle_attention, width, "decoder.middle.1")) < 0 ||
        (code = vae_load_residual(loader, &network->middle_out, width, "decoder.middle.2")) < 0)
        return code;
    int spatial = VAE_PATCH, temporal = 1;
    while (vae_has(loader, "decoder.upsamples.%d.upsamples.0.residual.0.gamma", network->stages)) {
        if (network->stages == VAE_MAX_STAGES)
            return error_set(loader->error, ERROR_BAD_FILE, "vae.decoder has more than %d stages", VAE_MAX_STAGES);
        struct vae_stage *stage = &network->stage[network->stages];
        if ((code = vae_load_stage(loader, stage, width, "decoder.upsamples", "upsamples", network->stages)) < 0)
            return code;
        network->stages++;
        width = stage->out;
        int factor = 4 * (stage->has_time ? 2 : 1);
        if ((stage->has_resample && stage->out * factor % stage->in) ||
            (stage->has_time && stage->time.out != 2 * stage->out))
            return error_set(loader->error, ERROR_BAD_FILE,
                             "vae.decoder.upsamples.%d has widths that do not fit: %d to %d", network->stages - 1,
                             stage->in, stage->out);
        spatial *= stage->has_resample ? 2 : 1;
        temporal *= stage->has_time ? 2 : 1;
    }
    if (spatial != VAE_SPATIAL_STRIDE || temporal != VAE_TEMPORAL_STRIDE)
        return error_set(loader->error, ERROR_BAD_FILE,
                         "vae.decoder enlarges %d times in space and %d times in time, expected %d and %d", spatial,
                         temporal, VAE_SPATIAL_STRIDE, VAE_TEMPORAL_STRIDE);
    if ((code = vae_load_norm(loader, &network->head_norm, width, "decoder.head.0.gamma")) < 0)
        return code;
    return vae_load_conv(loader, &network->head, width, VAE_PATCH_CHANNELS, cube, "decoder.head.2");
}

static void head(struct vae_pass *pass, struct vae_frame x)
{
    const struct vae_network *network = pass->network;
    size_t pixels = (size_t)(x.height * VAE_PATCH) * (size_t)(x.width * VAE_PATCH) * 3;
    vae_norm_silu(pass, &network->head_norm, &x, x.at);
    struct vae_frame patches = vae_frame_take(pass, x.height, x.width, VAE_PATCH_CHANNELS);
    vae_conv_causal(pass, &network->head, &x, patches.at, false);
    vae_frame_release(pass, &x);
    struct vae_frame image = vae_frame_take(pass, x.height * VAE_PATCH, x.width * VAE_PATCH, 3);
    VAE_RUN(pass, unpatchify, vae_at(pass, patches.at), 1, x.height, x.width, vae_at(pass, image.at));
    VAE_RUN(pass, download, pass->pixels_out, vae_at(pass, image.at), pixels);
    vae_frame_release(pass, &patches);
    vae_frame_release(pass, &image);
    if (!pass->rehearsal)
        pass->pixels_out += pixels;
    pass->frames_out++;
    vae_block_end(pass);
}

/* Doubles the frame rate: the convolution has twice the channels, one half for each frame. */
static struct vae_frame double_frames(struct vae_pass *pass, const struct vae_stage *stage, struct vae_frame *x)
{
    struct vae_frame halves = vae_frame_take(pass, x->height, x->width, 2 * x->channels);
    vae_conv_causal(pass, &stage->time, x, halves.at, false);
    vae_frame_release(pass, x);
    struct vae_frame pair = vae_frame_take(pass, 2 * x->height, x->width, x->channels);
    VAE_RUN(pass, split_frames, vae_at(pass, halves.at), 1, (size_t)x->height * (size_t)x->width, x->channels,
            vae_at(pass, pair.at));
    vae_frame_release(pass, &halves);
    pair.height = x->height;
    return pair;
}

static void run_stage(struct vae_pass *pass, int index, struct vae_frame x)
{
    const struct vae_stage *stage = &pass->network->stage[index];
    if (index == pass->network->stages) {
        head(pass, x);
        return;
    }
    if (!stage->has_resample) {
        for (int j = 0; j < stage->residuals; j++)
            vae_residual_run(pass, &stage->residual[j], &x);
        run_stage(pass, index + 1, x);
        return;
    }

    /* The shortcut goes into the output first, so that x may be changed in place. */
    int factor_t = stage->has_time ? 2 : 1;
    int frames = pass->frame ? factor_t : 1;
    struct vae_frame out = {.height = 2 * x.height, .width = 2 * x.width, .channels = stage->out};
    size_t out_elements = vae_frame_elements(&out);
    size_t piece = out.at = workspace_take(&pass->workspace, (size_t)frames * out_elements);
    VAE_RUN(pass, zero, vae_at(pass, out.at), (size_t)frames * out_elements);
    VAE_RUN(pass, duplicate_up, vae_at(pass, x.at), 1, x.height, x.width, stage->in, stage->out, factor_t, 2,
            factor_t - frames, vae_at(pass, out.at));
    for (int j = 0; j < stage->residuals; j++)
        vae_residual_run(pass, &stage->residual[j], &x);
    if (frames == 2)
        x = double_frames(pass, stage, &x);
    if (vae_is_due(pass)) {
        struct conv_call call = {
            .x = vae_at(pass, x.at),
            .frames = frames,
            .height = x.height,
            .width = x.width,
            .upsample2x = true,
            .stride_t = 1,
            .stride_h = 1,
            .stride_w = 1,
            .pad_top = 1,
            .pad_bottom = 1,
            .pad_left = 1,
            .pad_right = 1,
            .add = true,
            .out = vae_at(pass, out.at),
        };
        pass->kernels->conv(pass->kernels, stage->resample.conv, &call);
    }
    vae_frame_release(pass, &x);
    vae_block_end(pass);
    for (int f = 0; f < frames; f++) {
        out.piece = f == frames - 1 ? piece : VAE_BORROWED;
        run_stage(pass, index + 1, out);
        out.at += out_elements;
    }
}

void vae_decoder_run(struct vae_pass *pass)
{
    const struct vae_network *network = pass->network;
    int channels = pass->vae->latent_channels;
    struct vae_frame latent = vae_frame_take(pass, pass->latent_height, pass->latent_width, channels);
    struct vae_frame z = vae_frame_take(pass, pass->latent_height, pass->latent_width, channels);
    VAE_RUN(pass, upload, vae_at(pass, latent.at), pass->host_latent, vae_frame_elements(&latent));
    VAE_RUN(pass, linear, network->latent_conv.pointwise, vae_at(pass, latent.at), latent.height * latent.width,
            vae_at(pass, z.at), false);
    vae_frame_release(pass, &latent);
    struct vae_frame x = vae_frame_take(pass, pass->latent_height, pass->latent_width, network->first.out);
    vae_conv_causal(pass, &network->first, &z, x.at, false);
    vae_frame_release(pass, &z);
    vae_middle_run(pass, &x);
    run_stage(pass, 0, x);
}
