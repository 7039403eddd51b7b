/* print-parameters: the table of parameters (daemon/engine/parameters.c) in the forms that are kept beside it.
 *
 *     print-parameters json        protocol/parameters.json, for clients that have no daemon to ask
 *     print-parameters c           protocol/known_parameters.c, the same for clients in C
 *     print-parameters markdown    the tables of protocol/PROTOCOL.md
 *
 * `make parameters` writes all three; a test compares them with what a daemon answers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/parameters_json.h"
#include "daemon/request.h"

/* Text that grows; memory that runs out ends the program. */
struct text {
    char *at;
    size_t bytes;
    FILE *stream;
};

static FILE *text_open(struct text *text)
{
    text->stream = open_memstream(&text->at, &text->bytes);
    if (!text->stream)
        abort();
    return text->stream;
}

static char *text_end(struct text *text)
{
    if (fclose(text->stream))
        abort();
    return text->at;
}

/* ---- In words ---- */

/* What is accepted; "" for everything of the kind. The caller frees. */
static char *accepted_of(const struct parameter *p, const char *quote)
{
    struct text text;
    FILE *out = text_open(&text);
    if (p->multiple)
        fprintf(out, "multiples of %d up to %g", p->multiple, p->high);
    else if (p->kind == PARAMETER_WHOLE)
        fprintf(out, "0 to 2^64-1");
    else if (p->kind == PARAMETER_TEXT && p->high > 0)
        fprintf(out, "at most %.0f bytes", p->high);
    else if (p->low < p->high)
        fprintf(out, "%.10g to %.10g", p->low, p->high);
    for (int i = 0; p->choices && p->choices[i]; i++)
        fprintf(out, "%s%s%s%s", i ? ", " : "", quote, p->choices[i], quote);
    return text_end(&text);
}

static char *default_of(const struct parameter *p, enum lance_task task, const char *quote)
{
    cJSON *json = parameter_default_json(p, task);
    char *printed = json_print(json), *words = NULL;
    if (!printed ||
        asprintf(&words, "%s%s%s", quote, cJSON_IsString(json) && !*quote ? json->valuestring : printed, quote) < 0)
        abort();
    if (cJSON_IsNull(json))
        *words = '\0';
    cJSON_free(printed);
    cJSON_Delete(json);
    return words;
}

/* The default of the tasks that share one, each with their names unless all do. The caller frees. */
static char *usual_of(const struct parameter *p, const char *quote)
{
    struct text text;
    FILE *out = text_open(&text);
    unsigned left = p->tasks;
    while (left) {
        const int first = __builtin_ctz(left);
        const struct parameter_value *value = parameter_default(p, (enum lance_task)first);
        unsigned same = 0;
        for (int task = first; task < LANCE_TASK_COUNT; task++)
            if (left & 1u << task && parameter_default(p, (enum lance_task)task) == value)
                same |= 1u << task;
        char *words = default_of(p, (enum lance_task)first, quote);
        if (*words) {
            fprintf(out, "%s%s", left == p->tasks || !ftell(out) ? "" : "; ", words);
            for (int task = 0, named = 0; same != p->tasks && task < LANCE_TASK_COUNT; task++)
                if (same & 1u << task)
                    fprintf(out, "%s%s%s%s", named++ ? ", " : " for ", quote, lance_task_name((enum lance_task)task),
                            quote);
        }
        free(words);
        left &= ~same;
    }
    return text_end(&text);
}

/* ---- The forms ---- */

static void print_rows(const cJSON *rows)
{
    const cJSON *row;
    cJSON_ArrayForEach(row, rows)
    {
        char *line = json_print(row);
        if (!line)
            abort();
        printf("    %s%s\n", line, row->next ? "," : "");
        cJSON_free(line);
    }
}

/* One parameter a line, so that a change shows as one. */
static void print_json(void)
{
    cJSON *tables = json_object();
    parameters_add_json(tables);
    if (!json_is_complete(tables))
        abort();
    const cJSON *table;
    puts("{");
    cJSON_ArrayForEach(table, tables)
    {
        printf("  \"%s\": [\n", table->string);
        print_rows(table);
        printf("  ]%s\n", table->next ? "," : "");
    }
    puts("}");
    cJSON_Delete(tables);
}

/* The text of a string that `begin` opens, over as many lines of at most 119 columns as it takes; it stays open. */
static void print_c_text(const char *begin, const char *text)
{
    const size_t indent = strlen(begin) - 1, most = 119 - strlen(begin) - 1;
    for (printf("%s", begin); strlen(text) > most; printf("\"\n%*s\"", (int)indent, "")) {
        size_t length = most;
        while (length > 1 && text[length - 1] != ' ')
            length--;
        printf("%.*s", (int)length, text);
        text += length;
    }
    printf("%s", text);
}

static void print_c_table(const struct parameter *table)
{
    for (const struct parameter *p = table; p->name; p++) {
        char *accepted = accepted_of(p, ""), *usual = usual_of(p, ""), kind[16] = "";
        for (size_t i = 0; i < strlen(parameter_kind_name(p->kind)) && i + 1 < sizeof kind; i++)
            kind[i] = (char)(parameter_kind_name(p->kind)[i] - 'a' + 'A');
        printf("    {.name = \"%s\",\n     .kind = KNOWN_%s,\n     .tasks = \"", p->name, kind);
        for (int task = 0; task < LANCE_TASK_COUNT; task++)
            if (parameter_is_for(p, (enum lance_task)task))
                printf("%s ", lance_task_name((enum lance_task)task));
        printf("\",\n");
        if (p->choices) {
            printf("     .choices = (const char *const[]){");
            for (int i = 0; p->choices[i]; i++)
                printf("\"%s\",%s", p->choices[i],
                       i == 3 && p->choices[4] ? "\n                                      " : " ");
            printf("NULL},\n");
        }
        printf("     .accepted = \"%s\",\n     .usual = \"%s\",\n", accepted, usual);
        print_c_text("     .help = \"", p->help);
        printf("\"},\n");
        free(accepted);
        free(usual);
    }
}

static void print_c(void)
{
    puts("/* known_parameters.c: see known_parameters.h. Written by make parameters. */\n"
         "#include \"protocol/known_parameters.h\"\n\n"
         "#include <string.h>\n\n"
         "const struct known_parameter known_parameters[] = {");
    print_c_table(lance_parameters);
    print_c_table(server_parameters);
    puts("    {.name = NULL},\n};\n\n"
         "const struct known_parameter *known_parameter_find(const char *name)\n{\n"
         "    for (const struct known_parameter *p = known_parameters; p->name; p++)\n"
         "        if (!strcmp(p->name, name))\n"
         "            return p;\n"
         "    return NULL;\n}");
}

static void print_tasks(unsigned tasks)
{
    const struct { unsigned tasks; const char *name; } groups[] = {
        {TASKS_THAT_SAMPLE, "generation"}, {1u << LANCE_X2T_IMAGE | 1u << LANCE_X2T_VIDEO, "questions"}};
    const char *separator = "";
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        if ((tasks & groups[i].tasks) == groups[i].tasks) {
            printf("%s%s", separator, groups[i].name);
            separator = ", ";
            tasks &= ~groups[i].tasks;
        }
    for (int task = 0; task < LANCE_TASK_COUNT; task++)
        if (tasks & 1u << task) {
            printf("%s`%s`", separator, lance_task_name((enum lance_task)task));
            separator = ", ";
        }
}

static void print_markdown_table(const struct parameter *table)
{
    puts("| name | kind | accepted | default | for | |\n|---|---|---|---|---|---|");
    for (const struct parameter *p = table; p->name; p++) {
        char *accepted = accepted_of(p, "`"), *usual = usual_of(p, "`");
        printf("| `%s` | %s | %s | %s | ", p->name, parameter_kind_name(p->kind), accepted,
               p->is_required ? "(required)" : usual);
        print_tasks(p->tasks);
        printf(" | %s |\n", p->help);
        free(accepted);
        free(usual);
    }
}

static void print_markdown(void)
{
    print_markdown_table(lance_parameters);
    puts("\nThese are the daemon's alone and change nothing of the result:\n");
    print_markdown_table(server_parameters);
}

int main(int argc, char **argv)
{
    const struct { const char *name; void (*print)(void); } forms[] = {
        {"json", print_json}, {"c", print_c}, {"markdown", print_markdown}};
    for (size_t i = 0; argc == 2 && i < sizeof forms / sizeof *forms; i++)
        if (!strcmp(argv[1], forms[i].name)) {
            forms[i].print();
            return fflush(stdout) || ferror(stdout);
        }
    fprintf(stderr, "usage: print-parameters json|c|markdown\n");
    return 2;
}
