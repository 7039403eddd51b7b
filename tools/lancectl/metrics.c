/* metrics.c: see metrics.h. */
#include "tools/lancectl/metrics.h"

#include <stdio.h>

/* A label's value: what would end it is escaped. Not say(), which would escape the backslashes. */
static void print_value(const char *text)
{
    for (; *text != '\0'; text++)
        if (*text == '\n')
            fputs("\\n", stdout);
        else if (*text == '"' || *text == '\\')
            printf("\\%c", *text);
        else if ((unsigned char)*text >= ' ')
            putchar(*text);
}

/* {name="value",...}, and le="LE" where that is not NULL; nothing where there is no label at all. */
static void print_labels(const cJSON *labels, const char *le)
{
    const char *before = "{";
    const cJSON *label;
    cJSON_ArrayForEach(label, labels)
    {
        printf("%s%s=\"", before, label->string);
        print_value(cJSON_IsString(label) ? label->valuestring : "");
        putchar('"');
        before = ",";
    }
    if (le)
        printf("%sle=\"%s\"", before, le);
    if (le || *before == ',')
        putchar('}');
}

static void print_histogram(const char *name, const cJSON *labels, const cJSON *histogram)
{
    const cJSON *bucket;
    const double count = json_number(histogram, "count");
    cJSON_ArrayForEach(bucket, cJSON_GetObjectItemCaseSensitive(histogram, "buckets"))
    {
        const cJSON *bound = cJSON_GetArrayItem(bucket, 0), *within = cJSON_GetArrayItem(bucket, 1);
        char le[32];
        snprintf(le, sizeof le, "%.15g", cJSON_IsNumber(bound) ? bound->valuedouble : 0.0);
        printf("%s_bucket", name);
        print_labels(labels, le);
        printf(" %.15g\n", cJSON_IsNumber(within) ? within->valuedouble : 0.0);
    }
    printf("%s_bucket", name);
    print_labels(labels, "+Inf");
    printf(" %.15g\n%s_sum", count, name);
    print_labels(labels, NULL);
    printf(" %.15g\n%s_count", json_number(histogram, "sum"), name);
    print_labels(labels, NULL);
    printf(" %.15g\n", count);
}

void print_metrics(const cJSON *metrics)
{
    const cJSON *metric, *sample;
    cJSON_ArrayForEach(metric, metrics)
    {
        const char *name = json_text(metric, "name"), *kind = json_text(metric, "kind");
        const char *help = json_text(metric, "help");
        if (!name || !kind || !help)
            continue;
        printf("# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind);
        cJSON_ArrayForEach(sample, cJSON_GetObjectItemCaseSensitive(metric, "samples"))
        {
            const cJSON *labels = cJSON_GetObjectItemCaseSensitive(sample, "labels");
            const cJSON *histogram = cJSON_GetObjectItemCaseSensitive(sample, "histogram");
            if (histogram) {
                print_histogram(name, labels, histogram);
                continue;
            }
            fputs(name, stdout);
            print_labels(labels, NULL);
            printf(" %.15g\n", json_number(sample, "value"));
        }
    }
}
