/* check-golden: the engine against results recorded from the official code.
 *
 *   check-golden DIR                 every case of DIR/cases
 *   check-golden DIR --only TEXT     those whose name has TEXT in it
 *   check-golden DIR --quiet         print failures only
 *   check-golden DIR --backend cuda  on the GPU (cpu is the default); bf16 there, so it may be 1.5 times as far from
 *                                    the float32 results as the official code's own bf16 runs are; cases recorded in
 *                                    bf16 are left out
 *   check-golden DIR --isa avx2      on the CPU with no larger instruction set (portable, avx2, avx512, avx512-bf16,
 *                                    amx)
 *   check-golden DIR --precision bf16  on the CPU in bf16, with the bounds of a card; --isa amx-emulated,
 *                                    avx512-bf16-emulated: in plain C that gives the bytes of those instructions
 *
 * DIR is laid out as tests/golden/data. Each stage is fed the recorded input and compared with the
 * recorded output; then the whole job is run. One line per case and stage, and at the end the counts; exit status 1
 * when something failed, 2 when nothing could be checked.
 */
#include "tests/tools/check-golden/checks.h"
#include "tests/tools/check-golden/models.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void check_case(struct report *report, struct models *models, const char *dir, const char *name)
{
    char cases[600], inputs[600];
    struct golden *golden = NULL;
    struct error error;
    struct check check = {.report = report};
    snprintf(cases, sizeof cases, "%s/cases", dir);
    snprintf(inputs, sizeof inputs, "%s/tiny", dir);
    report->case_name = name;
    int code = golden_open(&golden, cases, name, inputs, &error);
    if (!code)
        code = models_for(models, golden, &check.model, &error);
    if (!code)
        code = job_plan_make(&check.plan, check.model, &golden->request, &error);
    if (code) {
        report_failure(report, "open", "%s", error.text);
    } else if (!models->distances || strcmp(golden->mode, "bf16") != 0) {
        golden->distances = models->distances;
        check.golden = golden;
        check_prompt(&check);
        check_sources(&check);
        check_generation(&check);
        check_decoding(&check);
        check_job(&check);
    }
    job_plan_free(&check.plan);
    golden_close(golden);
}

/* NAME[.QUANT].MODE.json: sort so that the cases of one model follow each other. */
static int by_model(const struct dirent **left, const struct dirent **right)
{
    const char *a = strchr((*left)->d_name, '.'), *b = strchr((*right)->d_name, '.');
    int order = a && b ? strcmp(a, b) : 0;
    return order ? order : strcmp((*left)->d_name, (*right)->d_name);
}

static int is_manifest(const struct dirent *entry)
{
    size_t length = strlen(entry->d_name);
    return length > 5 && !strcmp(entry->d_name + length - 5, ".json");
}

int main(int argc, char **argv)
{
    const char *dir = NULL, *only = "";
    struct backend_options backend = {.backend = BACKEND_CPU};
    struct report report = {0};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--quiet"))
            report.quiet = true;
        else if (!strcmp(argv[i], "--only") && i + 1 < argc)
            only = argv[++i];
        else if (!strcmp(argv[i], "--backend") && i + 1 < argc && backend_of(argv[i + 1]) >= 0)
            backend.backend = (enum backend)backend_of(argv[++i]);
        else if (!strcmp(argv[i], "--isa") && i + 1 < argc && isa_of(argv[i + 1]) >= 0)
            backend.isa = (enum isa)isa_of(argv[++i]);
        else if (!strcmp(argv[i], "--precision") && i + 1 < argc && precision_of(argv[i + 1]) >= 0)
            backend.precision = (enum precision)precision_of(argv[++i]);
        else if (argv[i][0] != '-' && !dir)
            dir = argv[i];
        else
            dir = NULL, i = argc;
    }
    if (!dir) {
        fprintf(stderr, "usage: check-golden DIR [--only TEXT] [--quiet] [--backend auto|cpu|cuda] [--isa NAME] "
                        "[--precision float32|bf16|auto]\n");
        return 2;
    }
    char cases[600];
    struct dirent **entries = NULL;
    snprintf(cases, sizeof cases, "%s/cases", dir);
    int count = scandir(cases, &entries, is_manifest, by_model);
    struct models models;
    struct error error;
    if (count < 0 || models_open(&models, dir, &backend, &error)) {
        fprintf(stderr, "check-golden: %s\n", count < 0 ? "DIR/cases cannot be read" : error.text);
        return 2;
    }
    for (int i = 0; i < count; i++) {
        char *name = entries[i]->d_name;
        name[strlen(name) - 5] = 0;
        if (strstr(name, only))
            check_case(&report, &models, dir, name);
        free(entries[i]);
    }
    free(entries);
    models_close(&models);
    printf("%d passed, %d failed\n", report.passed, report.failed);
    return report.failed ? 1 : report.passed ? 0 : 2;
}
