/* calibrate_command.c: see calibrate_command.h. */
#include "tools/lance-quant/calibrate_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/command_line.h"
#include "tools/lance-quant/calibrate.h"
#include "tools/lance-quant/command.h"
#include "tools/lance-quant/job_options.h"

enum { OPTION_RESUME = 256, OPTION_NO_MOMENTS };

static int run(struct calibrate_options *options, const struct job_options *jobs)
{
    struct error error;
    options->model = jobs->model;
    options->vae = jobs->vae;
    options->vit = jobs->vit;
    options->backend = jobs->backend;
    options->sizes = jobs->sizes;
    options->threads = jobs->threads;
    if (calibrate(options, &command_interrupted, &error) != 0)
        return command_complain(&error);
    printf("%s: %d samples\n", options->output, options->samples.count);
    return EXIT_SUCCESS;
}

int calibrate_command(int argc, char **argv)
{
    static const struct option names[] = {
        JOB_OPTIONS,
        {"resume", no_argument, NULL, OPTION_RESUME},
        {"no-moments", no_argument, NULL, OPTION_NO_MOMENTS},
        {"output", required_argument, NULL, 'o'},
        {0},
    };
    struct calibrate_options options = {.moments = true};
    struct job_options jobs;
    struct error error;
    job_options_init(&jobs);
    for (int c; (c = command_line_next(argc, argv, ":o:", names, "lance-quant help", &error)) != -1;) {
        bool known;
        const char *complaint = job_option(&jobs, c, &known);
        if (complaint != NULL)
            return command_wrong(complaint);
        if (c == OPTION_RESUME)
            options.resume = true;
        else if (c == OPTION_NO_MOMENTS)
            options.moments = false;
        else if (c == 'o')
            options.output = optarg;
        else if (!known) {
            command_complain(&error);
            return EXIT_WRONG_COMMAND_LINE;
        }
    }
    const size_t length = options.output != NULL ? strlen(options.output) : 0;
    if (optind < argc || length <= 12 || strcmp(options.output + length - 12, ".safetensors") != 0)
        return command_wrong("calibrate needs -o with a name that ends in .safetensors, and nothing but options");
    if (access(options.output, F_OK) == 0)
        return command_wrong("-o: that file exists");
    const char *complaint = job_samples(&jobs, &options.samples, &error);
    const int status = complaint != NULL   ? command_wrong(complaint)
                       : error.code != 0 ? command_complain(&error)
                                         : run(&options, &jobs);
    samples_free(&options.samples);
    return status;
}
