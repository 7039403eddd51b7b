/* apply_command.c: see apply_command.h. */
#include "tools/lance-quant/apply_command.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/command_line.h"
#include "base/parallel.h"
#include "tools/lance-quant/apply.h"
#include "tools/lance-quant/command.h"
#include "tools/lance-quant/recipe.h"

static const double least_budget = 4.2, default_budget = 5, most_budget = 16; /* bits a weight */

/* What was said. */
struct words {
    struct apply_options options;
    bool has_form, has_group, mixed;
    int group;
    double budget; /* 0: not said */
};

static bool read_budget(const char *text, double *budget)
{
    char *end;
    *budget = strtod(text, &end);
    return end != text && *end == '\0' && *budget >= least_budget && *budget <= most_budget;
}

/* Take the ingredients that a list names out of *ingredients. */
static bool leave_out(const char *list, unsigned *ingredients)
{
    static const struct {
        const char *name;
        unsigned ingredient;
    } known[] = {{"scaling", WITH_SCALING},           {"down-through-up", WITH_DOWN_THROUGH_UP},
                 {"clipping", WITH_CLIPPING},         {"four-or-six", WITH_FOUR_OR_SIX},
                 {"feedback", WITH_FEEDBACK},         {"refinement", WITH_REFINEMENT}};
    while (*list != '\0') {
        const size_t length = strcspn(list, ",");
        size_t k = 0;
        while (k < sizeof known / sizeof *known &&
               (strlen(known[k].name) != length || strncmp(list, known[k].name, length) != 0))
            k++;
        if (k == sizeof known / sizeof *known)
            return false;
        *ingredients &= ~known[k].ingredient;
        list += length + (list[length] == ',');
    }
    return true;
}

/* What options do not go together; NULL: they do. */
static const char *wrong_recipe(const struct recipe *recipe, bool has_group)
{
    const enum weight_format format = recipe->form.format;
    if (recipe->slim && (format != WEIGHT_NVFP4 || recipe->kind != RECIPE_BEST))
        return "--slim: is for nvfp4 and the recipe best";
    if (has_group && (format != WEIGHT_AWQ_INT4 || recipe->budget > 0))
        return "--group: is for awq-int4; nvfp4 has groups of 16, int8 of 128";
    if ((format == WEIGHT_INT8 || recipe->budget > 0) && recipe->kind != RECIPE_BEST)
        return "--recipe: published is of awq-int4 and nvfp4";
    if (recipe->ingredients != WITH_ALL && recipe->kind != RECIPE_BEST)
        return "--without: is for the recipe best";
    return NULL;
}

/* Take one option. NULL, or what is wrong with it. */
static const char *take(struct words *words, int option)
{
    struct apply_options *options = &words->options;
    switch (option) {
    case 'm': options->model = optarg; return NULL;
    case 's': options->statistics = optarg; return NULL;
    case 'o': options->output = optarg; return NULL;
    case 'e': options->sensitivities = optarg; return NULL;
    case 'S': options->recipe.slim = true; return NULL;
    case 'f':
        words->has_form = recipe_form(optarg, &options->recipe.form, &words->mixed);
        return words->has_form ? NULL : "--form: must be awq-int4, nvfp4, int8 or mixed";
    case 'g':
        words->has_group = recipe_group(optarg, &words->group);
        return words->has_group ? NULL : "--group: must be 64 or 128";
    case 'b': return read_budget(optarg, &words->budget) ? NULL : "--budget: must be from 4.2 to 16";
    case 'r': return recipe_kind_of(optarg, &options->recipe.kind) ? NULL : "--recipe: must be best or published";
    case 'w': return leave_out(optarg, &options->recipe.ingredients) ? NULL : "--without: names what there is not";
    default:
        return command_number(optarg, 1, PARALLEL_MOST_THREADS, &options->threads) ? NULL
                                                                                   : "--threads: must be from 1 to 64";
    }
}

/* Bring together what was said. NULL, or what is missing or does not fit. */
static const char *complete(struct words *words, bool nothing_else)
{
    struct apply_options *options = &words->options;
    if (!nothing_else || !options->model || !options->statistics || !options->output ||
        !words->has_form)
        return "apply needs --model, --stats, --form and -o, and nothing else";
    if ((words->budget != 0 || options->sensitivities) && !words->mixed)
        return words->budget != 0 ? "--budget: is for mixed" : "--sensitivities: is for mixed";
    if (words->mixed)
        options->recipe.budget = words->budget != 0 ? words->budget : default_budget;
    const char *wrong = wrong_recipe(&options->recipe, words->has_group);
    if (!wrong && words->has_group)
        options->recipe.form.group = words->group;
    return wrong;
}

int apply_command(int argc, char **argv)
{
    static const struct option names[] = {
        {"model", required_argument, NULL, 'm'},
        {"stats", required_argument, NULL, 's'},
        {"form", required_argument, NULL, 'f'},
        {"group", required_argument, NULL, 'g'},
        {"budget", required_argument, NULL, 'b'},
        {"sensitivities", required_argument, NULL, 'e'},
        {"recipe", required_argument, NULL, 'r'},
        {"without", required_argument, NULL, 'w'},
        {"slim", no_argument, NULL, 'S'},
        {"threads", required_argument, NULL, 't'},
        {"output", required_argument, NULL, 'o'},
        {0},
    };
    struct words words = {.options = {.threads = command_processors(), .recipe.ingredients = WITH_ALL}};
    struct error error;
    for (int c; (c = command_line_next(argc, argv, ":o:", names, "lance-quant help", &error)) != -1;) {
        if (!strchr("msfgberwSto", c)) {
            command_complain(&error);
            return EXIT_WRONG_COMMAND_LINE;
        }
        const char *wrong = take(&words, c);
        if (wrong)
            return command_wrong(wrong);
    }
    const char *wrong = complete(&words, optind == argc);
    if (wrong)
        return command_wrong(wrong);
    if (apply(&words.options, &command_interrupted, &error) != 0)
        return command_complain(&error);
    printf("%s: put it beside the release that it was made from, whose tokenizer, ViT and VAE it uses\n",
           words.options.output);
    return EXIT_SUCCESS;
}
