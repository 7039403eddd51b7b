/* check.c: see check.h.
 *
 * The reader (checkpoint.h) has looked at names, types and shapes already, and refuses what does not fit. Here come the
 * values, the meta file beside the tensors, and what it all adds up to.
 */
#include "tools/lance-quant/check.h"

#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/mapped_file.h"
#include "daemon/engine/model/checkpoint/checkpoint.h"
#include "kernels/formats/group.h"
#include "kernels/formats/numbers.h"
#include "tools/lance-quant/source.h"

enum { NAME_BYTES = 1024, PART_BYTES = 16, MOST_META_BYTES = 64 << 20, MOST_META_VALUES = 1 << 20, MOST_SHOWN = 20 };

/* The parts of a model that bits are counted for. */
enum section { UNDERSTANDING, GENERATION, WORDS, THE_REST, SECTIONS };
static const char *const section_names[SECTIONS] = {"understanding", "generation", "embedding and head", "the rest"};

/* How a form's kind begins, and its files: one of weights and its meta file, or model.safetensors, in shards too. */
struct form {
    const char *kind, *weights, *meta; /* NULL: model.safetensors */
    bool is_nvfp4;
    unsigned codes; /* how many there are where zero points have their range, of U8 codes */
    uint64_t codes_each; /* in an element: of U8 codes, or of MLX's U32 */
};
static const struct form forms[] = {
    {"awq-int4", "awq_state_dict.safetensors", "awq_meta.json", false, INT4_CODES, CODES_PER_BYTE},
    {"awq-int5", "awq_state_dict.safetensors", "awq_meta.json", false, 2 * INT4_CODES, 1},
    {"nvfp4", "nvfp4_state_dict.safetensors", "nvfp4_meta.json", true, 0, CODES_PER_BYTE},
    {"int8", "int8_state_dict.safetensors", "int8_meta.json", false, 0, CODES_PER_BYTE},
    {"mixed", "mixed_state_dict.safetensors", "mixed_meta.json", false, INT4_CODES, CODES_PER_BYTE},
    {"mlx-int8", NULL, NULL, false, 0, sizeof(uint32_t)},
    {"mlx-", NULL, NULL, false, 0, CODES_PER_WORD},
    {"", NULL, NULL, false, 0, 1}, /* bf16, f32 */
};

/* What has been counted. */
struct report {
    const char *directory;
    struct safetensors *file;
    cJSON *meta;
    const struct form *form;
    int problems;
    uint64_t weights[SECTIONS], bytes[SECTIONS];
    int linears;
    uint64_t groups, zero_scales;            /* scales that are not E4M3 */
    uint64_t fp8_groups, subnormal;          /* E4M3 scales */
    float smallest, largest;                 /* scale, other than 0 */
};

static void __attribute__((format(printf, 2, 3))) problem(struct report *report, const char *format, ...)
{
    if (report->problems++ >= MOST_SHOWN)
        return;
    va_list arguments;
    fputs("  problem: ", stdout);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

static bool ends_with(const char *name, const char *suffix)
{
    const size_t length = strlen(name), tail = strlen(suffix);
    return length > tail && strcmp(name + length - tail, suffix) == 0;
}

/* Where a tensor counts. */
static enum section section_of(const char *name)
{
    if (strstr(name, "embed_tokens") || strstr(name, "lm_head"))
        return WORDS;
    if (!strstr(name, "layers."))
        return THE_REST;
    return strstr(name, "_moe_gen") ? GENERATION : UNDERSTANDING;
}

/* --- Scales and zero points ---------------------------------------------------------------------------- */

static const struct tensor_view *part_of(const struct report *report, const char *linear, const char *part)
{
    char name[NAME_BYTES + PART_BYTES];
    snprintf(name, sizeof name, "%s.%s", linear, part);
    return safetensors_find(report->file, name);
}

static void count_scale(struct report *report, float scale, uint64_t *odd)
{
    if (!isfinite(scale) || scale < 0)
        ++*odd;
    else if (scale == 0)
        report->zero_scales++;
    else {
        report->smallest = fminf(report->smallest, scale);
        report->largest = fmaxf(report->largest, scale);
    }
}

static void check_scales(struct report *report, const char *linear, const struct tensor_view *scales)
{
    const uint64_t n = tensor_elements(scales);
    uint64_t odd = 0;
    for (uint64_t i = 0; i < n; i++)
        count_scale(report, bf16_at(scales->data, i), &odd);
    report->groups += n;
    if (odd > 0)
        problem(report, "%s: %llu of %llu scales are negative or no numbers", linear, (unsigned long long)odd,
                (unsigned long long)n);
}

/* Below 2^-6 E4M3 has few digits left, which is where scales without a tensor's own lie. */
static void check_fp8(struct report *report, const char *linear, const struct tensor_view *scales)
{
    const uint64_t n = tensor_elements(scales);
    const uint8_t *bytes = scales->data;
    uint64_t odd = 0;
    for (uint64_t i = 0; i < n; i++) {
        const unsigned size = bytes[i] & 0x7f;
        odd += size == 0x7f || (bytes[i] & 0x80) != 0;
        report->subnormal += size > 0 && size < 8;
    }
    report->fp8_groups += n;
    if (odd > 0)
        problem(report, "%s: %llu of %llu FP8 scales are negative or no numbers", linear, (unsigned long long)odd,
                (unsigned long long)n);
}

static void check_zeros(struct report *report, const char *linear, const struct tensor_view *zeros)
{
    const uint8_t *bytes = zeros->data;
    uint64_t odd = 0;
    for (uint64_t i = 0; i < zeros->bytes; i++)
        odd += bytes[i] >= report->form->codes;
    if (odd > 0)
        problem(report, "%s: %llu of %llu zero points are over %u", linear, (unsigned long long)odd,
                (unsigned long long)zeros->bytes, report->form->codes - 1);
}

static const char *scales_of(const struct report *report)
{
    return report->form->is_nvfp4 ? PART_SCALES_BF16 : PART_SCALES;
}

static void check_linear(struct report *report, const char *linear)
{
    const struct tensor_view *scales = part_of(report, linear, scales_of(report));
    const struct tensor_view *fp8 = part_of(report, linear, PART_SCALES_FP8),
                             *zeros = part_of(report, linear, PART_ZEROS);
    report->linears++;
    if (scales && scales->dtype == DTYPE_BF16)
        check_scales(report, linear, scales);
    if (fp8)
        check_fp8(report, linear, fp8);
    if (zeros)
        check_zeros(report, linear, zeros);
}

/* --- The meta file ------------------------------------------------------------------------------------- */

static int read_meta(struct report *report, const char *name, struct error *error)
{
    const struct json_limits limits = {MOST_META_BYTES, MOST_META_VALUES, ERROR_BAD_FILE, ERROR_BAD_FILE};
    char path[PATH_MAX];
    struct mapped_file text;
    if (snprintf(path, sizeof path, "%s/%s", report->directory, name) >= (int)sizeof path)
        return error_set(error, ERROR_IO, "%s: the path is too long", report->directory);
    if (access(path, F_OK) != 0) {
        problem(report, "there is no %s", name);
        return 0;
    }
    int code = mapped_file_open(&text, path, error);
    if (code != 0)
        return code;
    code = json_parse(&report->meta, (const char *)text.data, (size_t)text.bytes, &limits, path, error);
    mapped_file_close(&text);
    return code;
}

static uint64_t codes_each(const struct report *report, const struct tensor_view *codes)
{
    return codes->dtype == DTYPE_I8 ? 1 : report->form->codes_each;
}

/* Whether there is an entry of a weight, with the right groups. (The reader compares the shape.) */
static void check_entry(struct report *report, const char *linear, const struct tensor_view *codes)
{
    char name[NAME_BYTES + PART_BYTES];
    snprintf(name, sizeof name, "%s.weight", linear);
    const cJSON *entries = cJSON_GetObjectItemCaseSensitive(report->meta, "per_weight");
    const cJSON *entry = cJSON_GetObjectItemCaseSensitive(entries, name);
    if (!entry) {
        problem(report, "%s: the meta file does not name it", linear);
        return;
    }
    const struct tensor_view *scales = part_of(report, linear, scales_of(report));
    const cJSON *group = cJSON_GetObjectItemCaseSensitive(
        entry, report->form->is_nvfp4 ? "block_size" : "group_size");
    if (scales &&
        cJSON_GetNumberValue(group) * (double)scales->shape[1] != (double)(codes->shape[1] * codes_each(report, codes)))
        problem(report, "%s: the meta file's groups are not those of the scales", linear);
}

static void check_meta(struct report *report)
{
    const double said = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(report->meta, "awq_linears")) +
                        cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(report->meta, "plain_linears"));
    if (said == said && said != report->linears)
        problem(report, "the meta file counts %g layers, there are %d", said, report->linears);
}

/* --- The whole ------------------------------------------------------------------------------------------ */

/* Weights and bytes of a tensor; codes count as the weights that they are, what goes with them as bytes alone. */
static void count_tensor(struct report *report, const struct tensor_view *tensor)
{
    const enum section section = section_of(tensor->name);
    char linear[NAME_BYTES];
    report->bytes[section] += tensor->bytes;
    if (!ends_with(tensor->name, "." PART_CODES)) {
        if (!ends_with(tensor->name, "." PART_SCALES) && !ends_with(tensor->name, "." PART_SCALES_BF16) &&
            !ends_with(tensor->name, "." PART_SCALES_FP8) && !ends_with(tensor->name, "." PART_ZEROS) &&
            !ends_with(tensor->name, "." PART_TENSOR_SCALE))
            report->weights[section] += tensor_elements(tensor);
        return;
    }
    report->weights[section] += tensor->bytes * codes_each(report, tensor);
    snprintf(linear, sizeof linear, "%.*s", (int)(strlen(tensor->name) - strlen("." PART_CODES)), tensor->name);
    check_linear(report, linear);
    if (report->meta && tensor->dimensions == 2)
        check_entry(report, linear, tensor);
}

/* Of model.safetensors: MLX's scales, which may be negative, and offsets, each by itself; and what it all takes. */
static void count_model_tensor(struct report *report, const struct tensor_view *tensor)
{
    const enum section section = section_of(tensor->name);
    const bool is_scale = ends_with(tensor->name, "." PART_SCALES);
    const uint64_t n = tensor_elements(tensor);
    uint64_t odd = 0;
    report->bytes[section] += tensor->bytes;
    if (!is_scale && !ends_with(tensor->name, "." PART_OFFSETS)) {
        report->linears += tensor->dtype == DTYPE_U32;
        report->weights[section] += n * (tensor->dtype == DTYPE_U32 ? report->form->codes_each : 1);
        return;
    }
    if (tensor->dtype == DTYPE_U8)
        check_fp8(report, tensor->name, tensor);
    if (tensor->dtype != DTYPE_BF16)
        return;
    for (uint64_t i = 0; i < n; i++) {
        const float value = bf16_at(tensor->data, i);
        if (is_scale)
            count_scale(report, fabsf(value), &odd);
        else
            odd += !isfinite(value);
    }
    report->groups += is_scale ? n : 0;
    if (odd > 0)
        problem(report, "%s: %llu of %llu are no numbers", tensor->name, (unsigned long long)odd,
                (unsigned long long)n);
}

static void print_totals(const struct report *report)
{
    uint64_t weights = 0, bytes = 0;
    if (report->linears > 0)
        printf("  quantised layers: %d\n", report->linears);
    if (report->groups > 0)
        printf("  scales: %llu, from %.3g to %.3g, %llu are 0\n", (unsigned long long)report->groups,
               (double)report->smallest, (double)report->largest, (unsigned long long)report->zero_scales);
    if (report->fp8_groups > 0)
        printf("  FP8 scales: %llu of %llu (%.2f %%) are subnormal, with fewer digits\n",
               (unsigned long long)report->subnormal, (unsigned long long)report->fp8_groups,
               100.0 * (double)report->subnormal / (double)report->fp8_groups);
    for (int section = 0; section < SECTIONS; section++) {
        weights += report->weights[section];
        bytes += report->bytes[section];
        if (report->weights[section] > 0)
            printf("  %-18s %14llu weights, %6.3f bits each\n", section_names[section],
                   (unsigned long long)report->weights[section],
                   8.0 * (double)report->bytes[section] / (double)report->weights[section]);
    }
    if (weights > 0)
        printf("  %-18s %14llu weights, %6.3f bits each\n", "all", (unsigned long long)weights,
               8.0 * (double)bytes / (double)weights);
}

static void print_tasks(const struct checkpoint *checkpoint)
{
    const bool generates = checkpoint_can_generate(checkpoint), sees = checkpoint_can_see(checkpoint);
    printf("  tasks: %s%s%s\n", generates ? "t2i t2v" : "", generates && sees ? " i2v image_edit video_edit" : "",
           sees ? (generates ? " x2t_image x2t_video" : "x2t_image x2t_video") : "");
    if (!generates)
        printf("  pictures and videos need %s\n", checkpoint_lacks_for_generation(checkpoint));
}

static int check_values(struct report *report, struct error *error)
{
    char path[PATH_MAX];
    const char *file = report->form->weights;
    if (snprintf(path, sizeof path, "%s/%s", report->directory, file) >= (int)sizeof path)
        return error_set(error, ERROR_IO, "%s: the path is too long", report->directory);
    int code = safetensors_open(&report->file, path, error);
    if (code == 0)
        code = read_meta(report, report->form->meta, error);
    if (code != 0)
        return code;
    for (size_t i = 0; i < safetensors_count(report->file); i++)
        count_tensor(report, safetensors_at(report->file, i));
    if (report->meta)
        check_meta(report);
    print_totals(report);
    return 0;
}

static int check_model_files(struct report *report, struct error *error)
{
    struct source *source;
    const int code = source_open(&source, report->directory, error);
    if (code != 0)
        return code;
    for (size_t i = 0; i < source_count(source); i++)
        count_model_tensor(report, source_at(source, i));
    source_close(source);
    print_totals(report);
    return 0;
}

static const struct form *form_of_kind(const char *kind)
{
    const struct form *form = forms;
    while (strncmp(kind, form->kind, strlen(form->kind)) != 0)
        form++;
    return form; /* at the latest the last, which is of any kind */
}

int check(const char *directory, int *problems, struct error *error)
{
    const struct checkpoint_options options = {.model_dir = directory};
    struct checkpoint *checkpoint;
    struct report report = {.directory = directory, .smallest = INFINITY};
    int code = checkpoint_open(&checkpoint, &options, error);
    if (code != 0)
        return code;
    const char *kind = checkpoint_kind(checkpoint);
    printf("%s: %s\n", directory, kind);
    if (*checkpoint_warnings(checkpoint))
        printf("  warning: %s\n", checkpoint_warnings(checkpoint));
    report.form = form_of_kind(kind);
    code = report.form->weights ? check_values(&report, error) : check_model_files(&report, error);
    if (code == 0)
        print_tasks(checkpoint);
    if (report.problems > MOST_SHOWN)
        printf("  ... %d problems in all\n", report.problems);
    *problems = report.problems;
    cJSON_Delete(report.meta);
    safetensors_close(report.file);
    checkpoint_close(checkpoint);
    return code;
}
