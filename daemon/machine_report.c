/* machine_report.c: see machine_report.h. */
#include "daemon/machine_report.h"

#include "base/json.h"
#include "daemon/machine_memory.h"
#include "daemon/model_choice.h"
#include "kernels/kernels.h"
#include "protocol/version.h"

cJSON *machine_report_json(const struct device *device)
{
    struct machine_memory memory = {0};
    struct error unknown;
    cJSON *machine = json_object();
    const bool has_plugin = device->why_not_cuda.code != ERROR_NOT_FOUND;
    json_add_bool(machine, "uses_cuda", !device->kernels->host_memory);
    json_add_bool(machine, "cuda_plugin", has_plugin);
    json_add_text(machine, "why_not_cuda", device->why_not_cuda.code != 0 ? device->why_not_cuda.text : NULL);
    if (machine_memory_read(&memory, "", &unknown) == 0) {
        json_add_number(machine, "memory_bytes", (double)memory.total_bytes);
        json_add_number(machine, "available_bytes", (double)memory.available_bytes);
    }
    return machine;
}

static cJSON *models_on_disk(const struct options *options, uint64_t budget_bytes)
{
    cJSON *models = json_array();
    for (int i = 0; i < options->model_count; i++) {
        struct model_facts facts;
        cJSON *model = json_object();
        model_facts_read(&facts, options, i, budget_bytes);
        json_add_text(model, "name", options->models[i].name);
        model_facts_add(model, &facts);
        json_append(models, model);
    }
    return models;
}

int machine_report_print(const struct options *options, FILE *out, struct error *error)
{
    struct device device;
    uint64_t budget = 0;
    int code = device_open(&device, options, error);
    if (code != 0)
        return code;
    struct kernels *kernels = device.kernels;
    code = model_choice_budget(&budget, options, kernels->memory_available(kernels), error);
    if (code == 0) {
        cJSON *report = json_object();
        json_add_text(report, "version", LANCED_VERSION);
        json_add_text(report, "backend", kernels->name);
        json_add_text(report, "advice", device.advice[0] != '\0' ? device.advice : NULL);
        json_add(report, "machine", machine_report_json(&device));
        json_add(report, "models", models_on_disk(options, budget));
        char *text = json_print(report);
        if (text)
            fprintf(out, "%s\n", text);
        else
            code = error_set(error, ERROR_NO_MEMORY, "--check: no memory");
        cJSON_free(text);
        cJSON_Delete(report);
    }
    device_close(&device);
    return code;
}
