/* compare_command.c: see compare_command.h. */
#include "tools/lance-quant/compare_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/command_line.h"
#include "tools/lance-quant/command.h"
#include "tools/lance-quant/compare.h"

/* What was said. */
struct words {
    struct compare_options options;
    struct job_options jobs;
    struct samples samples;
    struct code_form form; /* of --recipes */
    int group;             /* 0: the form's own */
    bool has_form;
};

static const char *read_recipes(struct words *words, char *list)
{
    struct compare_options *options = &words->options;
    for (char *name = strtok(list, ","); name; name = strtok(NULL, ",")) {
        struct recipe *recipe = &options->recipes[options->recipe_count];
        if (options->recipe_count == COMPARE_MOST_RECIPES || !recipe_kind_of(name, &recipe->kind) ||
            (options->recipe_count == 1 && recipe->kind == options->recipes[0].kind))
            return "--recipes: must be published, best, or both with a comma";
        recipe->ingredients = WITH_ALL;
        options->recipe_count++;
    }
    return options->recipe_count > 0 ? NULL : "--recipes: must be published, best, or both with a comma";
}

/* Take an option that is no job's. NULL, or what is wrong with it. */
static const char *take(struct words *words, int option, bool *known)
{
    struct compare_options *options = &words->options;
    bool mixed;
    switch (option) {
    case 'R': options->reference = optarg; return NULL;
    case 'a': options->statistics = optarg; return NULL;
    case 'T': options->text = optarg; return NULL;
    case 'o': options->output = optarg; return NULL;
    case 'C': return read_recipes(words, optarg);
    case 'F':
        words->has_form = recipe_form(optarg, &words->form, &mixed) && !mixed && words->form.format != WEIGHT_INT8;
        return words->has_form ? NULL : "--form: must be awq-int4 or nvfp4, which both recipes make";
    case 'g': return recipe_group(optarg, &words->group) ? NULL : "--group: must be 64 or 128";
    default: *known = false; return NULL;
    }
}

/* Bring together what was said. NULL, or what is missing or does not fit. */
static const char *complete(struct words *words, bool nothing_else)
{
    struct compare_options *options = &words->options;
    struct stat there;
    if (!nothing_else || !options->reference || !options->output)
        return "compare needs --reference and -o, and nothing but options";
    if (stat(options->output, &there) == 0)
        return "-o: that folder exists";
    if (words->group != 0 && (!words->has_form || words->form.format != WEIGHT_AWQ_INT4))
        return "--group: is for --form awq-int4";
    if (words->group != 0)
        words->form.group = words->group;
    if (options->recipe_count == 0)
        return words->has_form ? "--form: is for --recipes" : NULL;
    if (!words->has_form || !options->statistics || words->jobs.model)
        return "--recipes: needs --form and --stats, and no --model: both are made of --reference";
    for (int i = 0; i < options->recipe_count; i++)
        options->recipes[i].form = words->form;
    words->jobs.model = options->reference;
    return NULL;
}

int compare_command(int argc, char **argv)
{
    static const struct option names[] = {
        JOB_OPTIONS, {"reference", required_argument, NULL, 'R'}, {"stats", required_argument, NULL, 'a'},
        {"text", required_argument, NULL, 'T'}, {"recipes", required_argument, NULL, 'C'},
        {"form", required_argument, NULL, 'F'}, {"group", required_argument, NULL, 'g'},
        {"output", required_argument, NULL, 'o'}, {0}};
    struct words words = {0};
    struct error error;
    words.options.jobs = &words.jobs;
    words.options.samples = &words.samples;
    job_options_init(&words.jobs);
    for (int c; (c = command_line_next(argc, argv, ":o:", names, "lance-quant help", &error)) != -1;) {
        bool known;
        const char *complaint = job_option(&words.jobs, c, &known);
        if (!known) {
            known = true;
            complaint = take(&words, c, &known);
        }
        if (complaint)
            return command_wrong(complaint);
        if (!known) {
            command_complain(&error);
            return EXIT_WRONG_COMMAND_LINE;
        }
    }
    const char *complaint = complete(&words, optind == argc);
    if (complaint)
        return command_wrong(complaint);
    complaint = job_samples(&words.jobs, &words.samples, &error);
    int status = complaint ? command_wrong(complaint) : error.code != 0 ? command_complain(&error) : -1;
    if (status < 0)
        status = compare(&words.options, &command_interrupted, &error) != 0 ? command_complain(&error) : EXIT_SUCCESS;
    samples_free(&words.samples);
    return status;
}
