/* vae.c: see vae.h. Opening, latent scale, and the passes that run vae_decoder.c and vae_encoder.c. */
#include "daemon/engine/model/vae.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/engine/model/finite.h"
#include "daemon/engine/model/vae_blocks.h"

/* Statistics of the Wan 2.2 VAE's 48 latent channels; they are not in the checkpoint.
 * Source: Wan2_2_VAE in the official modeling/vae/wan/vae2_2.py. */
static const float latent_mean[LATENT_CHANNELS] = {
    -0.2289f, -0.0052f, -0.1323f, -0.2339f, -0.2799f, 0.0174f,  0.1838f,  0.1557f,  -0.1382f, 0.0542f,
    0.2813f,  0.0891f,  0.1570f,  -0.0098f, 0.0375f,  -0.1825f, -0.2246f, -0.1207f, -0.0698f, 0.5109f,
    0.2665f,  -0.2108f, -0.2158f, 0.2502f,  -0.2055f, -0.0322f, 0.1109f,  0.1567f,  -0.0729f, 0.0899f,
    -0.2799f, -0.1230f, -0.0313f, -0.1649f, 0.0117f,  0.0723f,  -0.2839f, -0.2083f, -0.0520f, 0.3748f,
    0.0152f,  0.1957f,  0.1433f,  -0.2944f, 0.3573f,  -0.0548f, -0.1681f, -0.0667f,
};
static const float latent_std[LATENT_CHANNELS] = {
    0.4765f, 1.0364f, 0.4514f, 1.1677f, 0.5313f, 0.4990f, 0.4818f, 0.5013f, 0.8158f, 1.0344f, 0.5894f, 1.0901f,
    0.6885f, 0.6165f, 0.8454f, 0.4978f, 0.5759f, 0.3523f, 0.7135f, 0.6804f, 0.5833f, 1.4146f, 0.8986f, 0.5659f,
    0.7069f, 0.5338f, 0.4889f, 0.4917f, 0.4069f, 0.4999f, 0.6866f, 0.4093f, 0.5709f, 0.6065f, 0.6415f, 0.4944f,
    0.5726f, 1.2042f, 0.5458f, 1.6887f, 0.3971f, 1.0600f, 0.3943f, 0.5537f, 0.5444f, 0.4089f, 0.7468f, 0.7744f,
};

int vae_open(struct vae **out, struct kernels *kernels, const struct checkpoint *checkpoint, struct error *error)
{
    *out = NULL;
    struct vae *vae = calloc(1, sizeof *vae);
    if (!vae)
        return error_set(error, ERROR_NO_MEMORY, "vae: out of memory");
    vae->kernels = kernels;
    vae->checkpoint = checkpoint;
    struct vae_loader loader = {.kernels = kernels, .checkpoint = checkpoint, .error = error};
    loader.network = &vae->decoder;
    int code = vae_decoder_load(&loader, &vae->latent_channels);
    if (code == 0 && vae->latent_channels != LATENT_CHANNELS)
        code = error_set(error, ERROR_BAD_FILE, "vae: %d latent channels; only the Wan 2.2 VAE with %d is known",
                         vae->latent_channels, LATENT_CHANNELS);
    loader.network = &vae->encoder;
    if (code == 0)
        code = vae_encoder_load(&loader, vae->latent_channels);
    if (code < 0) {
        vae_close(vae);
        return code;
    }
    *out = vae;
    return 0;
}

void vae_close(struct vae *vae)
{
    if (!vae)
        return;
    vae_network_close(&vae->decoder, vae->kernels);
    vae_network_close(&vae->encoder, vae->kernels);
    free(vae);
}

int vae_latent_channels(const struct vae *vae)
{
    return vae->latent_channels;
}

void vae_latent_to_raw(const struct vae *vae, float *values, size_t cells)
{
    for (size_t i = 0; i < cells; i++)
        for (int c = 0; c < vae->latent_channels; c++, values++)
            *values = *values / (1.0f / latent_std[c]) + latent_mean[c];
}

void vae_latent_from_raw(const struct vae *vae, float *values, size_t cells)
{
    for (size_t i = 0; i < cells; i++)
        for (int c = 0; c < vae->latent_channels; c++, values++)
            *values = (*values - latent_mean[c]) * (1.0f / latent_std[c]);
}

/* Up to this many latent cells (a picture of 256 x 256) a frame is one step. */
enum { WHOLE_FRAME_CELLS = 256 };

/* Walk through the network once, computing the blocks that are due. */
static void walk(struct vae_pass *pass)
{
    pass->block = 0;
    for (int i = 0; i < pass->network->caches; i++)
        pass->cache[i].frames = pass->cache[i].frames_before;
    if (pass->network == &pass->vae->decoder)
        vae_decoder_run(pass);
    else
        vae_encoder_run(pass);
}

static void end_frame(struct vae_pass *pass)
{
    for (int i = 0; i < pass->network->caches; i++)
        pass->cache[i].frames_before = pass->cache[i].frames;
    pass->frame++;
    pass->due = 0;
}

static int blocks_of(const struct vae_pass *pass, int frame)
{
    return pass->blocks[frame > 0];
}

/* Steps of a latent frame. */
static int steps_of(const struct vae_pass *pass, int frame)
{
    return pass->latent_height * pass->latent_width <= WHOLE_FRAME_CELLS ? 1 : blocks_of(pass, frame);
}

/* The next step of the current frame. Returns 1 when there is more to come, 0 when the frame is done, or an error. */
static int step(struct vae_pass *pass, struct error *error)
{
    const int blocks = blocks_of(pass, pass->frame);
    pass->due_end = pass->due + (blocks + steps_of(pass, pass->frame) - 1) / steps_of(pass, pass->frame);
    walk(pass);
    int code = pass->kernels->sync(pass->kernels, error);
    if (code < 0)
        return code;
    pass->due = pass->due_end;
    if (pass->due < blocks)
        return 1;
    end_frame(pass);
    return 0;
}

/* A pass without memory that has been rehearsed: workspace.peak and cache_elements are known, the caches laid out. */
static int rehearse(struct vae_pass **out, const struct vae *vae, const struct vae_network *network, int latent_frames,
                    int latent_height, int latent_width, struct error *error)
{
    *out = NULL;
    struct vae_pass *pass = calloc(1, sizeof *pass);
    if (!pass || !(pass->cache = calloc((size_t)network->caches, sizeof *pass->cache))) {
        free(pass);
        return error_set(error, ERROR_NO_MEMORY, "vae: out of memory");
    }
    pass->vae = vae;
    pass->network = network;
    pass->kernels = vae->kernels;
    pass->latent_frames = latent_frames;
    pass->latent_height = latent_height;
    pass->latent_width = latent_width;
    pass->rehearsal = true;
    for (int i = 0; i < (latent_frames > 1 ? 2 : 1); i++) { /* all later frames are like the second */
        walk(pass);
        pass->blocks[i] = pass->block;
        end_frame(pass);
    }
    pass->rehearsal = false;
    pass->frame = 0;
    for (int i = 0; i < network->caches; i++)
        pass->cache[i].frames_before = 0;
    *out = pass;
    return 0;
}

static uint64_t host_bytes_of(const struct vae_pass *pass)
{
    return (uint64_t)pass->latent_height * (uint64_t)pass->latent_width * 2 * (uint64_t)pass->vae->latent_channels *
           sizeof(float);
}

static int pass_cost(const struct vae *vae, const struct vae_network *network, int latent_frames, int latent_height,
                     int latent_width, struct vae_cost *cost, struct error *error)
{
    struct vae_pass *pass;
    int code = rehearse(&pass, vae, network, latent_frames, latent_height, latent_width, error);
    if (code < 0)
        return code;
    cost->device_bytes = (uint64_t)(pass->workspace.peak + pass->cache_elements) * vae->kernels->act_bytes;
    cost->host_bytes = host_bytes_of(pass);
    cost->steps = steps_of(pass, 0) + (latent_frames - 1) * steps_of(pass, 1);
    vae_pass_close(pass);
    return 0;
}

int vae_decode_cost(const struct vae *vae, int latent_frames, int latent_height, int latent_width,
                    struct vae_cost *cost, struct error *error)
{
    return pass_cost(vae, &vae->decoder, latent_frames, latent_height, latent_width, cost, error);
}

int vae_encode_cost(const struct vae *vae, int latent_frames, int latent_height, int latent_width,
                    struct vae_cost *cost, struct error *error)
{
    return pass_cost(vae, &vae->encoder, latent_frames, latent_height, latent_width, cost, error);
}

static int begin(struct vae_pass **out, const struct vae *vae, const struct vae_network *network, int latent_frames,
                 int latent_height, int latent_width, struct error *error)
{
    *out = NULL;
    if (latent_frames < 1 || latent_height < 1 || latent_width < 1)
        return error_set(error, ERROR_INTERNAL, "vae: a pass over %d frames of %dx%d latent cells", latent_frames,
                         latent_height, latent_width);
    struct vae_pass *pass;
    int code = rehearse(&pass, vae, network, latent_frames, latent_height, latent_width, error);
    if (code < 0)
        return code;
    pass->host_latent = malloc((size_t)host_bytes_of(pass));
    if (!pass->host_latent)
        code = error_set(error, ERROR_NO_MEMORY, "vae: out of memory");
    void *memory = NULL;
    struct kernels *k = vae->kernels;
    if (code == 0 && (code = k->memory_alloc(k, &memory, pass->workspace.peak * k->act_bytes, error)) == 0)
        pass->memory = memory;
    if (code == 0 && (code = k->memory_alloc(k, &memory, pass->cache_elements * k->act_bytes, error)) == 0)
        pass->cache_memory = memory;
    if (code < 0) {
        vae_pass_close(pass);
        return code;
    }
    *out = pass;
    return 0;
}

int vae_decode_begin(struct vae_pass **out, struct vae *vae, int latent_frames, int latent_height, int latent_width,
                     struct error *error)
{
    return begin(out, vae, &vae->decoder, latent_frames, latent_height, latent_width, error);
}

int vae_encode_begin(struct vae_pass **out, struct vae *vae, int latent_frames, int latent_height, int latent_width,
                     struct error *error)
{
    return begin(out, vae, &vae->encoder, latent_frames, latent_height, latent_width, error);
}

static float clip(float pixel) /* NaN becomes -1 */
{
    return pixel > -1.0f ? (pixel < 1.0f ? pixel : 1.0f) : -1.0f;
}

static int check_turn(const struct vae_pass *pass, const struct vae_network *network, struct error *error)
{
    if (pass->network != network)
        return error_set(error, ERROR_INTERNAL, "vae: a decoding pass was asked to encode, or the reverse");
    if (pass->frame == pass->latent_frames)
        return error_set(error, ERROR_INTERNAL, "vae: more than the %d latent frames announced", pass->latent_frames);
    return 0;
}

int vae_decode_step(struct vae_pass *pass, const float *latent, float *pixels, int *frames, struct error *error)
{
    int code = check_turn(pass, &pass->vae->decoder, error);
    if (code < 0)
        return code;
    size_t cells = (size_t)pass->latent_height * (size_t)pass->latent_width;
    if (pass->due == 0)
        memcpy(pass->host_latent, latent, cells * (size_t)pass->vae->latent_channels * sizeof(float));
    pass->pixels_out = pixels;
    pass->frames_out = 0;
    code = step(pass, error);
    if (code != 0)
        return code;
    *frames = pass->frames_out;
    code = finite_check(pixels, (size_t)(pass->pixels_out - pixels), "decode", error);
    if (code < 0)
        return code;
    for (float *x = pixels; x < pass->pixels_out; x++)
        *x = clip(*x);
    return 0;
}

int vae_decode_frame(struct vae_pass *pass, const float *latent, float *pixels, int *frames, struct error *error)
{
    int code;
    do
        code = vae_decode_step(pass, latent, pixels, frames, error);
    while (code > 0);
    return code;
}

int vae_encode_step(struct vae_pass *pass, const float *pixels, int frames, float *mean, float *log_variance,
                    struct error *error)
{
    int code = check_turn(pass, &pass->vae->encoder, error);
    if (code < 0)
        return code;
    int expected = pass->frame ? VAE_TEMPORAL_STRIDE : 1;
    if (frames != expected)
        return error_set(error, ERROR_INTERNAL, "vae: %d frames to encode where %d are due", frames, expected);
    pass->pixels_in = pixels;
    code = step(pass, error);
    if (code != 0)
        return code;
    size_t cells = (size_t)pass->latent_height * (size_t)pass->latent_width;
    size_t channels = (size_t)pass->vae->latent_channels;
    for (size_t i = 0; i < cells; i++) {
        memcpy(mean + i * channels, pass->host_latent + 2 * i * channels, channels * sizeof(float));
        memcpy(log_variance + i * channels, pass->host_latent + (2 * i + 1) * channels, channels * sizeof(float));
    }
    vae_latent_from_raw(pass->vae, mean, cells);
    return 0;
}

int vae_encode_frames(struct vae_pass *pass, const float *pixels, int frames, float *mean, float *log_variance,
                      struct error *error)
{
    int code;
    do
        code = vae_encode_step(pass, pixels, frames, mean, log_variance, error);
    while (code > 0);
    return code;
}

void vae_pass_close(struct vae_pass *pass)
{
    if (!pass)
        return;
    if (pass->memory && pass->kernels->host_memory) /* convolutions have what they used in an order of their own now */
        checkpoint_let_go(pass->vae->checkpoint, "vae.");
    pass->kernels->memory_free(pass->kernels, pass->memory);
    pass->kernels->memory_free(pass->kernels, pass->cache_memory);
    free(pass->host_latent);
    free(pass->cache);
    free(pass);
}

void vae_pixels_to_u8(const float *pixels, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)lrintf((clip(pixels[i]) * 0.5f + 0.5f) * 255.0f);
}
