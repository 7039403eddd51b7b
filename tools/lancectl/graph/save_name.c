/* save_name.c: see save_name.h. */
#include "tools/lancectl/graph/save_name.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/json.h"
#include "tools/lancectl/graph/input_file.h"

/* ---- What stands between percent signs ---- */

/* A date in the front end's letters: d, dd, M, MM, yy, yyyy, h, hh, m, mm, s, ss. */
static void write_date(FILE *out, const char *format, size_t length, const struct tm *now)
{
    for (size_t i = 0; i < length;) {
        const char letter = format[i];
        size_t run = 1;
        const size_t longest = letter == 'y' ? 4 : 2;
        while (run < longest && i + run < length && format[i + run] == letter)
            run++;
        const int value = letter == 'd'   ? now->tm_mday
                          : letter == 'M' ? now->tm_mon + 1
                          : letter == 'h' ? now->tm_hour
                          : letter == 'm' ? now->tm_min
                          : letter == 's' ? now->tm_sec
                                          : -1;
        if (letter == 'y' && run >= 2) {
            run = run == 4 ? 4 : 2;
            fprintf(out, "%0*d", (int)run, run == 4 ? now->tm_year + 1900 : now->tm_year % 100);
        } else if (value >= 0) {
            fprintf(out, "%0*d", (int)run, value);
        } else {
            run = 1;
            fputc(letter, out);
        }
        i += run;
    }
}

/* The value of an input as it stands in the graph's file; slashes become underscores. Returns whether there is one. */
static bool write_input(FILE *out, const struct graph *graph, const char *node_name, size_t node_length,
                        const char *input, size_t input_length)
{
    const struct graph_node *found = NULL;
    for (int by_title = 0; by_title < 2 && !found; by_title++)
        for (int i = 0; i < graph->count && !found; i++) {
            const char *name = by_title ? graph->nodes[i].title : graph->nodes[i].kind->id;
            if (strlen(name) == node_length && !strncmp(name, node_name, node_length))
                found = &graph->nodes[i];
        }
    for (int i = 0; found && i < found->kind->inputs; i++) {
        const char *name = found->kind->input[i].name;
        if (strlen(name) != input_length || strncmp(name, input, input_length) || !found->input[i].value)
            continue;
        char *text = value_print(found->input[i].value);
        const size_t length = text ? strlen(text) : 0; /* the front end writes 4.0 as 4 */
        if (found->input[i].value->kind == VALUE_NUMBER && length > 2 && !strcmp(text + length - 2, ".0"))
            text[length - 2] = '\0';
        for (char *at = text; at && *at; at++)
            fputc(*at == '/' || *at == '\\' ? '_' : *at, out);
        free(text);
        return true;
    }
    return false;
}

/* Write what one "%...%" stands for. Returns whether it is known. */
static bool write_word(FILE *out, const char *word, size_t length, const struct graph *graph, int width, int height,
                       const struct tm *now)
{
    const struct { const char *word; int digits, value;
    } numbers[] = {{"width", 1, width},           {"height", 1, height},     {"year", 4, now->tm_year + 1900},
                   {"month", 2, now->tm_mon + 1}, {"day", 2, now->tm_mday},  {"hour", 2, now->tm_hour},
                   {"minute", 2, now->tm_min},    {"second", 2, now->tm_sec}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strlen(numbers[i].word) == length && !strncmp(numbers[i].word, word, length)) {
            fprintf(out, "%0*d", numbers[i].digits, numbers[i].value);
            return true;
        }
    static const char usual_date[] = "yyyy-MM-dd";
    if (length == 4 && !strncmp(word, "date", length)) {
        write_date(out, usual_date, sizeof usual_date - 1, now);
        return true;
    }
    if (length > 5 && !strncmp(word, "date:", 5)) {
        write_date(out, word + 5, length - 5, now);
        return true;
    }
    const char *dot = memchr(word, '.', length);
    return dot && write_input(out, graph, word, (size_t)(dot - word), dot + 1, length - (size_t)(dot - word) - 1);
}

/* malloc'ed; NULL: out of memory. */
static char *expand(const char *prefix, const struct graph *graph, int width, int height)
{
    char *text = NULL;
    size_t bytes;
    FILE *out = open_memstream(&text, &bytes);
    const time_t seconds = time(NULL);
    struct tm now;
    localtime_r(&seconds, &now);
    while (out && *prefix) {
        const char *end = *prefix == '%' ? strchr(prefix + 1, '%') : NULL;
        if (end && write_word(out, prefix + 1, (size_t)(end - prefix) - 1, graph, width, height, &now))
            prefix = end + 1;
        else
            fputc(*prefix++, out);
    }
    if (!out || fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}

/* ---- The folder and the number ---- */

int make_folders(const char *path, struct error *error)
{
    char *copy = strdup(path);
    if (!copy)
        return error_set(error, ERROR_NO_MEMORY, "no memory");
    for (char *slash = copy; (slash = strchr(slash + 1, '/')); *slash = '/') {
        *slash = '\0';
        mkdir(copy, 0777); /* the last one tells */
    }
    struct stat info;
    const int failed = mkdir(copy, 0777) && (errno != EEXIST || stat(copy, &info) || !S_ISDIR(info.st_mode));
    const int reason = errno == EEXIST ? ENOTDIR : errno;
    free(copy);
    return failed ? error_set(error, ERROR_IO, "cannot make the folder %s: %s", path, strerror(reason)) : 0;
}

/* One more than the largest number of a file "NAME_NUMBER..." in the folder. */
static int next_counter(const char *folder, const char *name)
{
    DIR *directory = opendir(folder);
    const size_t length = strlen(name);
    long largest = 0;
    for (struct dirent *entry; directory && (entry = readdir(directory));) {
        if (strncmp(entry->d_name, name, length) != 0 || entry->d_name[length] != '_')
            continue;
        char *end;
        const char *digits = entry->d_name + length + 1;
        const long number = isdigit((unsigned char)*digits) ? strtol(digits, &end, 10) : 0;
        if (number > largest && number < INT32_MAX && (*end == '_' || *end == '.' || !*end))
            largest = number;
    }
    if (directory)
        closedir(directory);
    return (int)largest + 1;
}

/* The path below the folder of outputs that a prefix stands for, malloc'ed. */
static int find_below(char **below, const char *prefix, const struct graph *graph, int width, int height,
                      struct error *error)
{
    char *expanded = expand(prefix, graph, width, height);
    int code = 0;
    *below = expanded ? path_below(expanded) : NULL;
    if (!expanded)
        code = error_set(error, ERROR_NO_MEMORY, "no memory for a file name");
    else if (!*below)
        code = error_set(error, ERROR_BAD_REQUEST, "\"%.200s\" leads out of the folder of outputs", expanded);
    free(expanded);
    return code;
}

int save_name_check(const char *prefix, const struct graph *graph, struct error *error)
{
    char *below;
    int code = find_below(&below, prefix, graph, 0, 0, error); /* sizes are digits, whichever they are */
    free(below);
    return code;
}

int save_name_open(struct save_name *out, const char *prefix, const struct graph *graph, const char *output_folder,
                   int width, int height, struct error *error)
{
    *out = (struct save_name){0};
    char *below;
    int code = find_below(&below, prefix, graph, width, height, error);
    if (!code) {
        char *slash = strrchr(below, '/');
        const int folder = slash ? (int)(slash - below) : 0;
        out->name = strdup(slash ? slash + 1 : *below ? below : ".");
        if (!out->name || asprintf(&out->folder, "%s%s%.*s", output_folder, folder ? "/" : "", folder, below) < 0) {
            out->folder = NULL;
            code = error_set(error, ERROR_NO_MEMORY, "no memory for a file name");
        }
    }
    free(below);
    if (!code)
        code = make_folders(out->folder, error);
    if (!code)
        out->counter = next_counter(out->folder, out->name);
    else
        save_name_close(out);
    return code;
}

void save_name_close(struct save_name *name)
{
    free(name->folder);
    free(name->name);
    *name = (struct save_name){0};
}

char *save_name_path(const struct save_name *name, int index, const char *ending)
{
    static const char batch_number[] = "%batch_num%";
    char *path = NULL, *stem = strdup(name->name), *at;
    while (stem && (at = strstr(stem, batch_number))) {
        char *replaced;
        if (asprintf(&replaced, "%.*s%d%s", (int)(at - stem), stem, index, at + sizeof batch_number - 1) < 0)
            replaced = NULL;
        free(stem);
        stem = replaced;
    }
    if (stem && asprintf(&path, "%s/%s_%05d_%s", name->folder, stem, name->counter + index, ending) < 0)
        path = NULL;
    free(stem);
    return path;
}
