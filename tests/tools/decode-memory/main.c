/* decode-memory: what a video's decoding really takes, beside what admission predicts.
 *
 *   build/tests/decode-memory MODEL [HEIGHT WIDTH [FRAMES...]]     default: 192 192 9 121
 *
 * Two lines per number of frames, each measured in a process of its own: the decoding alone, with frames
 * leaving as they are decoded, and a whole text-to-video job of one denoising step, result included. The
 * measure is the peak of the process's resident memory (VmHWM) over what it was with the model loaded and warm.
 * docs/memory.md has a table that it printed. Linux with glibc only; the allocator is set as lanced sets it.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/noise.h"
#include "daemon/engine/lance_model.h"
#include "daemon/engine/model/vae.h"
#include "kernels/kernels.h"

struct measure {
    uint64_t before, predicted, peak; /* resident bytes */
};

static void fail(const char *what)
{
    fprintf(stderr, "decode-memory: %s\n", what);
    exit(1);
}

/* A line of /proc/self/status, in bytes. */
static uint64_t status_bytes(const char *key)
{
    char line[256];
    unsigned long long kilobytes = 0;
    FILE *file = fopen("/proc/self/status", "re");
    while (file && fgets(line, sizeof line, file))
        if (!strncmp(line, key, strlen(key)))
            sscanf(line + strlen(key), " %llu", &kilobytes);
    if (file)
        fclose(file);
    return (uint64_t)kilobytes << 10;
}

/* Have VmHWM begin anew. */
static void reset_peak(void)
{
    FILE *file = fopen("/proc/self/clear_refs", "we");
    if (!file || fputs("5", file) < 0 || fclose(file))
        fail("cannot reset the peak of the resident memory (/proc/self/clear_refs)");
}

static struct lance_model *open_model(const char *folder, struct kernels **kernels)
{
    struct lance_model *model = NULL;
    struct error error;
    if (kernels_cpu_open(kernels, 0, CPU_AUTO, &error) ||
        lance_model_open(&model, *kernels, &(struct lance_model_options){.model_dir = folder}, &error))
        fail(error.text);
    return model;
}

static void decode(struct vae *vae, int frames, int height, int width)
{
    const int latent_frames = vae_latent_frames(frames), rows = height / VAE_SPATIAL_STRIDE,
              columns = width / VAE_SPATIAL_STRIDE;
    const size_t cells = (size_t)rows * (size_t)columns * (size_t)vae_latent_channels(vae),
                 picture = (size_t)height * (size_t)width * 3;
    float *latent = malloc(cells * sizeof *latent), *pixels = malloc(VAE_TEMPORAL_STRIDE * picture * sizeof *pixels);
    struct vae_pass *pass;
    struct error error;
    if (!latent || !pixels || vae_decode_begin(&pass, vae, latent_frames, rows, columns, &error))
        fail("no memory");
    for (int i = 0, made; i < latent_frames; i++) {
        noise_torch_cpu((uint64_t)i, latent, cells);
        if (vae_decode_frame(pass, latent, pixels, &made, &error))
            fail(error.text);
    }
    vae_pass_close(pass);
    free(latent);
    free(pixels);
}

static struct lance_request video(int frames, int height, int width)
{
    struct lance_request r;
    lance_request_init(&r, LANCE_T2V);
    r.prompt = "a red circle moves to the right on a blue background";
    r.num_frames = frames;
    r.height = height;
    r.width = width;
    r.num_inference_steps = 1;
    return r;
}

static void run_job(struct lance_model *model, const struct lance_request *r)
{
    struct lance_job *job;
    struct lance_progress progress;
    struct error error;
    int code = lance_job_start(&job, model, r, &error);
    while (code >= 0 && (code = lance_job_step(job, &progress, &error)) > 0)
        ;
    if (code < 0)
        fail(error.text);
    lance_job_close(job);
}

static struct measure measure(const char *folder, int frames, int height, int width, bool whole_job)
{
    struct kernels *kernels;
    struct lance_model *model = open_model(folder, &kernels);
    struct measure m;
    const struct lance_request r = video(frames, height, width), tiny = video(5, 32, 32);
    struct lance_memory memory;
    struct error error;
    run_job(model, &tiny); /* faults the weights in */
    reset_peak();
    m.before = status_bytes("VmRSS:");
    if (whole_job) {
        if (lance_estimate(model, &r, &memory, &error))
            fail(error.text);
        m.predicted = memory.total_bytes;
        run_job(model, &r);
    } else {
        struct vae_cost cost;
        if (vae_decode_cost(model->vae, vae_latent_frames(frames), height / VAE_SPATIAL_STRIDE,
                            width / VAE_SPATIAL_STRIDE, &cost, &error))
            fail(error.text);
        m.predicted = cost.device_bytes + cost.host_bytes +
                      (uint64_t)VAE_TEMPORAL_STRIDE * (uint64_t)height * (uint64_t)width * 3 * sizeof(float);
        decode(model->vae, frames, height, width);
    }
    m.peak = status_bytes("VmHWM:");
    lance_model_close(model);
    kernels->close(kernels);
    return m;
}

/* In a process of its own, so that nothing left over from another measure counts. */
static void print_measure(const char *folder, int frames, int height, int width, bool whole_job)
{
    fflush(stdout);
    pid_t child = fork();
    if (child < 0)
        fail("cannot start a process");
    if (child == 0) {
        struct measure m = measure(folder, frames, height, width, whole_job);
        const double taken = (double)(m.peak - m.before), predicted = (double)m.predicted;
        printf("| %s | %d | %.1f MB | %.1f MB | %.1f MB | %+.1f %% |\n", whole_job ? "whole job" : "decoding", frames,
               (double)m.peak / 1e6, taken / 1e6, predicted / 1e6, (taken / predicted - 1) * 100);
        fflush(stdout);
        _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) < 0 || status != 0)
        exit(1);
}

int main(int argc, char **argv)
{
    static const int usual[] = {9, 121};
    const int height = argc > 3 ? atoi(argv[2]) : 192, width = argc > 3 ? atoi(argv[3]) : 192;
    const int counts = argc > 4 ? argc - 4 : 2;
    if (argc < 2 || argc == 3 || height < 32 || width < 32 || height % VAE_SPATIAL_STRIDE ||
        width % VAE_SPATIAL_STRIDE) {
        fprintf(stderr, "usage: decode-memory MODEL [HEIGHT WIDTH [FRAMES...]]; sides are multiples of %d from 32\n",
                VAE_SPATIAL_STRIDE);
        return 2;
    }
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    printf("%d x %d\n\n| what | frames | peak resident | beside the model | predicted | off by |\n| --- | ---: | ---: "
           "| ---: | ---: | ---: |\n",
           height, width);
    for (int whole_job = 0; whole_job < 2; whole_job++)
        for (int i = 0; i < counts; i++)
            print_measure(argv[1], argc > 4 ? atoi(argv[4 + i]) : usual[i], height, width, whole_job);
    return 0;
}
