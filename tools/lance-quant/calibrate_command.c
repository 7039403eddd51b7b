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

static int run(const struct calibrate_options *options)
{
    struct error error;
    if (calibrate(options, &command_interrupted, &error) != 0)
        return command_complain(&error);
    printf("%s: %d samples\n", options->output, options->samples->count);
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
    struct job_options jobs;
    struct samples samples = {0};
    struct calibrate_options options = {.jobs = &jobs, .samples = &samples, .moments = true};
    struct error error;
    job_options_init(&jobs);
    for (int c; (c = command_line_next(argc, argv, ":o:", names, "lance-quant help", &error)) != -1;) {
        bool known;
        const char *complaint = job_option(&jobs, c, &known);
        if (complaint)
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
    const size_t length = options.output ? strlen(options.output) : 0;
    if (optind < argc || length <= 12 || strcmp(options.output + length - 12, ".safetensors") != 0)
        return command_wrong("calibrate needs -o with a name that ends in .safetensors, and nothing but options");
    if (access(options.output, F_OK) == 0)
        return command_wrong("-o: that file exists");
    const char *complaint = job_samples(&jobs, &samples, &error);
    const int status = complaint   ? command_wrong(complaint)
                       : error.code != 0 ? command_complain(&error)
                                         : run(&options);
    samples_free(&samples);
    return status;
}
