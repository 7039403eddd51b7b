/* comparison_report.c: see comparison_report.h. */
#include "tools/lance-quant/comparison_report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct column {
    const char *key;
    double factor;
    int digits;
    const char *unit;
};

/* The tasks that have the first column, a row each, of every model. */
static void rows_of(FILE *out, const cJSON *reports, const struct column *columns, size_t count)
{
    for (const cJSON *report = reports->child; report; report = report->next)
        for (const cJSON *t = cJSON_GetObjectItemCaseSensitive(report, "tasks")->child; t; t = t->next) {
            if (!cJSON_GetObjectItemCaseSensitive(t, columns->key))
                continue;
            fprintf(out, "| %s | %s | %g |", json_text(report, "model"), json_text(t, "task"),
                    json_number(t, "samples"));
            for (const struct column *c = columns; c < columns + count; c++)
                fprintf(out, " %.*f%s |", c->digits, c->factor * json_number(t, c->key), c->unit);
            fputc('\n', out);
        }
}

static void tasks_text(FILE *out, const cJSON *reports)
{
    static const struct column drawn[] = {
        {"latent_error", 1, 4, ""}, {"psnr_db", 1, 2, ""}, {"ssim", 1, 4, ""}, {"fine_energy", 1, 4, ""}};
    static const struct column said[] = {
        {"same_answers", 100, 1, " %"}, {"token_agreement", 100, 1, " %"}, {"tokens_before_divergence", 1, 1, ""},
        {"perplexity", 1, 5, ""}, {"reference_perplexity", 1, 5, ""}};
    fputs("\n| model | task | samples | latents off by | PSNR, dB | SSIM | energy above half of Nyquist, of the "
          "reference's |\n| --- | --- | --- | --- | --- | --- | --- |\n", out);
    rows_of(out, reports, drawn, sizeof drawn / sizeof *drawn);
    fputs("\n| model | task | questions | same answers | tokens that agree | tokens before the first other one | "
          "perplexity of the reference's answers | for the reference itself |\n"
          "| --- | --- | --- | --- | --- | --- | --- | --- |\n", out);
    rows_of(out, reports, said, sizeof said / sizeof *said);
}

static void reading_text(FILE *out, const cJSON *reports)
{
    if (!cJSON_GetObjectItemCaseSensitive(reports->child, "text"))
        return;
    fputs("\n| model | tokens of the text | perplexity | the reference's |\n| --- | --- | --- | --- |\n", out);
    for (const cJSON *report = reports->child; report; report = report->next) {
        const cJSON *text = cJSON_GetObjectItemCaseSensitive(report, "text");
        fprintf(out, "| %s | %g | %.4f | %.4f |\n", json_text(report, "model"), json_number(text, "tokens"),
                json_number(text, "perplexity"), json_number(text, "reference_perplexity"));
    }
}

static const struct {
    const char *key, *text;
} scales[] = {{"qkv", "q, k, v"}, {"gate_up", "gate, up"}, {"down", "down"}};

enum { SCALES = sizeof scales / sizeof *scales, ALPHA_STEPS = 10 };

static double alpha_of(const cJSON *layer, int scale)
{
    const cJSON *all = cJSON_GetObjectItemCaseSensitive(layer, "scales");
    return json_number(cJSON_GetObjectItemCaseSensitive(all, scales[scale].key), "alpha");
}

/* How many of an expert's layers have which alpha. */
static void alphas_text(FILE *out, const cJSON *layers)
{
    static const char *const experts[] = {"und", "gen"};
    fputs("\nColumns are multiplied by (size of the input)^alpha / (largest weight)^beta. So many layers have an alpha "
          "that is next to:\n\n| expert | scale of |", out);
    for (int step = 0; step <= ALPHA_STEPS; step++)
        fprintf(out, " %.1f |", (double)step / ALPHA_STEPS);
    fputs("\n| --- | --- |", out);
    for (int step = 0; step <= ALPHA_STEPS; step++)
        fputs(" --- |", out);
    fputc('\n', out);
    for (int row = 0; row < 2 * SCALES; row++) {
        const char *expert = experts[row / SCALES];
        int counts[ALPHA_STEPS + 1] = {0}, all = 0;
        for (const cJSON *layer = layers->child; layer; layer = layer->next) {
            if (strcmp(json_text(layer, "expert"), expert) != 0)
                continue;
            counts[(int)fmin(fmax(rint(alpha_of(layer, row % SCALES) * ALPHA_STEPS), 0), ALPHA_STEPS)]++;
            all++;
        }
        if (all == 0)
            continue;
        fprintf(out, "| %s | %s |", expert, scales[row % SCALES].text);
        for (int step = 0; step <= ALPHA_STEPS; step++)
            fprintf(out, " %d |", counts[step]);
        fputc('\n', out);
    }
}

/* The layers over depth. Those in the middle third have their numbers in bold. */
static void layers_text(FILE *out, const char *model, const cJSON *layers)
{
    static const char *const matrices[] = {"q", "k", "v", "o", "gate", "up", "down"};
    double deepest = 0;
    if (cJSON_GetArraySize(layers) == 0)
        return;
    for (const cJSON *layer = layers->child; layer; layer = layer->next)
        deepest = fmax(deepest, json_number(layer, "layer"));
    fprintf(out, "\nWhat the outputs of each layer of %s lose, by the statistics' inputs; the middle third is in bold."
            "\n"
            "\n| expert | layer | q | k | v | o | gate | up | down | alpha of q, k, v | of gate, up | of down |\n"
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n", model);
    for (const cJSON *layer = layers->child; layer; layer = layer->next) {
        const double number = json_number(layer, "layer");
        const bool middle = 3 * number >= deepest + 1 && 3 * number < 2 * (deepest + 1);
        fprintf(out, middle ? "| %s | **%g** |" : "| %s | %g |", json_text(layer, "expert"), number);
        for (size_t m = 0; m < sizeof matrices / sizeof *matrices; m++)
            fprintf(out, " %.4f |", json_number(layer, matrices[m]));
        for (int scale = 0; scale < SCALES; scale++)
            fprintf(out, " %.2f |", alpha_of(layer, scale));
        fputc('\n', out);
    }
    alphas_text(out, layers);
}

char *comparison_report_text(const char *reference, const cJSON *reports)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    if (!out)
        return NULL;
    fprintf(out, "# Against %s\n\nThe same jobs, seeds and noise; means over samples.\n", reference);
    tasks_text(out, reports);
    reading_text(out, reports);
    for (const cJSON *report = reports->child; report; report = report->next)
        layers_text(out, json_text(report, "model"), cJSON_GetObjectItemCaseSensitive(report, "layers"));
    return fclose(out) == 0 ? text : NULL;
}
