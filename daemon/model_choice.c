/* model_choice.c: see model_choice.h. */
#include "daemon/model_choice.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/utf8.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "daemon/machine_memory.h"

int model_choice_budget(uint64_t *budget_bytes, const struct options *options, uint64_t device_bytes,
                        struct error *error)
{
    uint64_t budget = device_bytes;
    if (budget == 0) {
        struct machine_memory machine;
        const int code = machine_memory_read(&machine, "", error);
        if (code != 0)
            return code;
        budget = machine.total_bytes > 0 ? machine.total_bytes - machine.total_bytes / 8 : UINT64_MAX;
    }
    bool is_capped = options->memory_limit_bytes != 0 && options->memory_limit_bytes < budget;
    *budget_bytes = is_capped ? options->memory_limit_bytes : budget;
    return 0;
}

void model_facts_read(struct model_facts *facts, const struct options *options, int index, uint64_t budget_bytes)
{
    *facts = (struct model_facts){.form = "dense"};
    const struct checkpoint_options paths = {
        .model_dir = options->models[index].directory, .vae_path = options->vae_path, .vit_path = options->vit_path};
    struct checkpoint_look look;
    struct error error = {0};
    if (checkpoint_look(&look, &paths, &error) != 0)
        snprintf(facts->problem, sizeof facts->problem, "%.190s", error.text);
    else {
        snprintf(facts->problem, sizeof facts->problem, "%.190s", look.missing);
        facts->file_bytes = look.file_bytes;
        facts->form = look.form;
        facts->is_four_bit = strcmp(facts->form, "dense") != 0 && strcmp(facts->form, "int8") != 0 &&
                             strcmp(facts->form, "mixed") != 0;
        facts->is_for_videos = strstr(look.name, "Video") != NULL;
    }
    utf8_make_line(facts->problem);
    facts->fits = facts->file_bytes <= budget_bytes;
}

/* Officially the tasks with a video in them are done with the release for videos. */
static bool wants_video_release(enum lance_task task)
{
    return task_makes_video(task) || task_takes_video(task);
}

/* Below this 4 bits gain nothing that anybody would notice. */
#define SMALL_BYTES 1000000000u

static int rank_of(const struct model_facts *facts, enum lance_task task)
{
    const bool is_light = facts->is_four_bit || facts->file_bytes < SMALL_BYTES;
    return 8 * (facts->problem[0] == '\0') + 4 * facts->fits + 2 * (facts->is_for_videos == wants_video_release(task)) +
           is_light;
}

static void explain(const struct model_facts *facts, int count, enum lance_task task, char *why, size_t why_bytes)
{
    const bool is_right = facts->is_for_videos == wants_video_release(task);
    const char *use = wants_video_release(task) ? "videos" : "pictures";
    const char *bits = facts->is_four_bit ? "4-bit" : "not 4-bit";
    char size[32];
    if (facts->file_bytes < SMALL_BYTES)
        snprintf(size, sizeof size, "%.0f MB", (double)facts->file_bytes / 1e6);
    else
        snprintf(size, sizeof size, "%.1f GB", (double)facts->file_bytes / 1e9);
    if (facts->problem[0] != '\0')
        snprintf(why, why_bytes, "no model here is whole; this one: %s", facts->problem);
    else if (!facts->fits)
        snprintf(why, why_bytes, "%s, %s: more than the memory that is there", bits, size);
    else if (!is_right)
        snprintf(why, why_bytes, "%s, %s, fits; made for %s: no model for %s that fits is here", bits, size,
                 facts->is_for_videos ? "videos" : "pictures", use);
    else if (count == 1)
        snprintf(why, why_bytes, "%s, %s, fits; the only model here", bits, size);
    else
        snprintf(why, why_bytes, "%s, %s, fits, for %s", bits, size, use);
}

int model_choose(const struct model_facts *facts, int count, enum lance_task task, char *why, size_t why_bytes)
{
    int best = 0;
    for (int i = 1; i < count; i++)
        if (rank_of(&facts[i], task) > rank_of(&facts[best], task))
            best = i;
    if (why)
        explain(&facts[best], count, task, why, why_bytes);
    return best;
}

static void read_all(struct model_facts facts[OFFERED_MAX_MODELS], const struct options *options, uint64_t budget_bytes)
{
    for (int i = 0; i < options->model_count; i++)
        model_facts_read(&facts[i], options, i, budget_bytes);
}

int model_choose_offered(const struct options *options, uint64_t budget_bytes, enum lance_task task)
{
    struct model_facts facts[OFFERED_MAX_MODELS];
    read_all(facts, options, budget_bytes);
    return model_choose(facts, options->model_count, task, NULL, 0);
}

void model_facts_add(cJSON *model, const struct model_facts *facts)
{
    json_add_text(model, "form", facts->form);
    json_add_text(model, "made_for", facts->is_for_videos ? "videos" : "pictures");
    json_add_number(model, "file_bytes", (double)facts->file_bytes);
    json_add_bool(model, "fits", facts->fits);
    json_add(model, "problem", facts->problem[0] != '\0' ? json_from_text(facts->problem) : json_null());
}

cJSON *model_choice_json(const struct options *options, uint64_t budget_bytes)
{
    struct model_facts facts[OFFERED_MAX_MODELS];
    read_all(facts, options, budget_bytes);
    cJSON *choices = json_object();
    for (int task = 0; task < LANCE_TASK_COUNT; task++) {
        char why[400];
        int index = model_choose(facts, options->model_count, (enum lance_task)task, why, sizeof why);
        cJSON *choice = json_add_object(choices, lance_task_name((enum lance_task)task));
        json_add_text(choice, "model", options->models[index].name);
        json_add_text(choice, "why", why);
        json_add_bool(choice, "suits", facts[index].is_for_videos == wants_video_release((enum lance_task)task));
    }
    return choices;
}
