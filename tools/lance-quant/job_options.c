/* job_options.c: see job_options.h. */
#include "tools/lance-quant/job_options.h"

#include <stdlib.h>

#include "base/parallel.h"
#include "tools/lance-quant/command.h"

enum { MOST_STEPS = 1000, MOST_SIDE = 8192, MOST_FRAMES = 1 << 12, MOST_SAMPLES = 1 << 16, SEED = 42 };

void job_options_init(struct job_options *options)
{
    *options = (struct job_options){.threads = command_processors(), .sizes.seed = SEED};
}

static const char *add_task(struct job_options *options, const char *name)
{
    const int task = lance_task_of(name);
    if (task < 0 || task_is_of_vae((enum lance_task)task))
        return "--task: must be t2i, t2v, i2v, image_edit, video_edit, x2t_image or x2t_video";
    if (options->file_count == JOB_MOST_FILES)
        return "--task: too many";
    options->files[options->file_count++].task = (enum lance_task)task;
    return NULL;
}

/* Give the file to the tasks that were named since the last one. */
static const char *bind_file(struct job_options *options, const char *examples, const char *prompts)
{
    if (options->bound == options->file_count)
        return "--examples and --prompts: say with --task before, which task they are for";
    for (; options->bound < options->file_count; options->bound++) {
        options->files[options->bound].examples = examples;
        options->files[options->bound].prompts = prompts;
    }
    return NULL;
}

static const char *read_size(struct job_options *options, const char *text)
{
    char *end;
    const long width = strtol(text, &end, 10);
    if (end == text || *end != 'x' || width < 16 || width > MOST_SIDE ||
        !command_number(end + 1, 16, MOST_SIDE, &options->sizes.height))
        return "--size: must be WIDTHxHEIGHT, such as 768x768";
    options->sizes.width = (int)width;
    return NULL;
}

static const char *read_backend(struct job_options *options, const char *name)
{
    const int backend = backend_of(name);
    options->backend.backend = backend < 0 ? BACKEND_AUTO : (enum backend)backend;
    return backend < 0 ? "--backend: must be auto, cpu or cuda" : NULL;
}

const char *job_option(struct job_options *options, int c, bool *known)
{
    int seed;
    *known = true;
    switch (c) {
    case 'm': options->model = optarg; return NULL;
    case 'v': options->vae = optarg; return NULL;
    case 'V': options->vit = optarg; return NULL;
    case 'P': options->pictures = optarg; return NULL;
    case 'r': options->sizes.resolution = optarg; return NULL;
    case 't': return add_task(options, optarg);
    case 'e': return bind_file(options, optarg, NULL);
    case 'p': return bind_file(options, NULL, optarg);
    case 'S': return read_size(options, optarg);
    case 'b': return read_backend(options, optarg);
    case 'n': return command_number(optarg, 1, MOST_SAMPLES, &options->most) ? NULL : "--samples: must be from 1 on";
    case 's':
        return command_number(optarg, 1, MOST_STEPS, &options->sizes.steps) ? NULL : "--steps: must be from 1 to 1000";
    case 'f':
        return command_number(optarg, 1, MOST_FRAMES, &options->sizes.frames) ? NULL : "--frames: must be from 1 on";
    case 'j':
        return command_number(optarg, 1, PARALLEL_MOST_THREADS, &options->threads) ? NULL
                                                                                   : "--threads: must be from 1 to 64";
    case 'd':
        if (!command_number(optarg, 0, 1L << 30, &seed))
            return "--seed: must be from 0 to 2^30";
        options->sizes.seed = (uint64_t)seed;
        return NULL;
    default: *known = false; return NULL;
    }
}

int job_model_open(struct kernels **kernels, struct lance_model **model, const struct job_options *options,
                   const char *folder, struct error *error)
{
    const struct lance_model_options model_options = {
        .model_dir = folder, .vae_path = options->vae, .vit_path = options->vit};
    *kernels = NULL;
    *model = NULL;
    int code = backend_open(kernels, &options->backend, NULL, error);
    return code != 0 ? code : lance_model_open(model, *kernels, &model_options, error);
}

const char *job_samples(struct job_options *options, struct samples *samples, struct error *error)
{
    *samples = (struct samples){0};
    error->code = 0;
    if (!options->model || options->file_count == 0)
        return "needs --model and, for each --task, --examples or --prompts";
    if (options->bound < options->file_count)
        return "--task: which --examples or --prompts are for it?";
    options->backend.threads = options->threads;
    for (int i = 0; i < options->file_count && error->code == 0; i++) {
        struct sample_files *files = &options->files[i];
        files->most = options->most;
        if (files->prompts && task_has_source(files->task))
            files->pictures = options->pictures;
        samples_add(samples, files, error);
    }
    return NULL;
}
