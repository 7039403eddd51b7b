/* command.c: see command.h. */
#include "tools/lancectl/graph/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/whole_file.h"
#include "tools/lancectl/complain.h"
#include "tools/lancectl/graph/graph_open.h"
#include "tools/lancectl/graph/run.h"
#include "tools/lancectl/graph/save_name.h"
#include "tools/lancectl/interrupt.h"
#include "tools/lancectl/say.h"

/* ---- What would be run ---- */

/* What a node does, in words; malloc'ed. NULL: out of memory. */
static char *words_of(const struct graph_node *node)
{
    char *words = NULL, *text;
    size_t bytes;
    FILE *out = open_memstream(&words, &bytes);
    if (!out)
        return NULL;
    const char *task = json_text(node->kind->entry, "task");
    if (task)
        fprintf(out, "a job of the daemon, %s", task);
    else if (node->kind->does && !strcmp(node->kind->does, "job"))
        fputs("a job of the daemon", out);
    for (int i = 0; i < node->kind->inputs; i++) {
        const struct node_input *input = &node->kind->input[i];
        const char *verb = json_text(input->entry, "file")                                 ? "reads"
                           : cJSON_GetObjectItemCaseSensitive(input->entry, "names_files") ? "writes"
                                                                                           : NULL;
        if (!verb || !node->input[i].value || !(text = value_print(node->input[i].value)))
            continue;
        fprintf(out, "%s %s", verb, text);
        free(text);
    }
    if (fclose(out)) {
        free(words);
        return NULL;
    }
    return words;
}

static void print_plan(const struct graph *graph, bool is_json)
{
    cJSON *list = json_array();
    for (int i = 0; i < graph->needed; i++) {
        const struct graph_node *node = &graph->nodes[graph->order[i]];
        char *words = words_of(node);
        if (!is_json)
            say(stdout, "%s %s (%s)%s%s\n", node->id, node->title, node->kind->id, words && *words ? ": " : "",
                words ? words : "");
        cJSON *entry = json_object();
        json_add_text(entry, "id", node->id);
        json_add_text(entry, "title", node->title);
        json_add_text(entry, "class", node->kind->id);
        json_add_text(entry, "does", words && *words ? words : NULL);
        json_append(list, entry);
        free(words);
    }
    cJSON *object = json_object();
    json_add(object, "nodes", list);
    char *text = is_json ? json_print(object) : NULL;
    if (text)
        say(stdout, "%s\n", text);
    cJSON_free(text);
    cJSON_Delete(object);
}

/* ---- The command ---- */

/* The folder that the graph's file is in; malloc'ed. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? strndup(path, slash > path ? (size_t)(slash - path) : 1) : strdup(".");
}

/* The folder of outputs has to be there before anything is done. */
static enum exit_code prepare_output(const char *folder)
{
    struct error error;
    char *inside;
    int code = make_folders(folder, &error);
    if (!code && asprintf(&inside, "%s/x", folder) >= 0) {
        code = whole_file_check_folder(inside, &error);
        free(inside);
    }
    if (!code)
        return EXIT_OK;
    complain(code, &error);
    return EXIT_NOT_WRITTEN;
}

/* Without slashes at its end. */
static char *plain_folder(const char *path)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    return strndup(path, length);
}

static enum exit_code check_and_run(const struct graph_wish *wish, const struct arguments *arguments)
{
    struct graph *graph;
    struct problems problems = {0};
    struct error error;
    int code = graph_open(&graph, wish, &problems, &error);
    problems_end(&problems);
    if (code) {
        complain(code, &error);
        return EXIT_NOT_READ;
    }
    if (!graph)
        return problems.is_about_files ? EXIT_NOT_READ : EXIT_USAGE;
    enum exit_code exit_code = EXIT_OK;
    if (arguments->dry_run)
        print_plan(graph, arguments->json);
    else if (!(exit_code = prepare_output(wish->folders.output)))
        exit_code = graph_run(graph, &wish->folders, arguments);
    graph_close(graph);
    return exit_code;
}

enum exit_code graph_command(const struct arguments *arguments)
{
    char *input = arguments->input_dir ? plain_folder(arguments->input_dir) : folder_of(arguments->source);
    char *output = plain_folder(arguments->output ? arguments->output : ".");
    enum exit_code exit_code = EXIT_FAILED;
    if (input && output) {
        const struct graph_wish wish = {.path = arguments->source, .set = arguments->set, .set_count = arguments->sets,
                                        .folders = {.input = input, .output = output}};
        exit_code = check_and_run(&wish, arguments);
    }
    free(input);
    free(output);
    return exit_code;
}

/* ---- Many graphs ---- */

enum { MAX_LINE_BYTES = 1 << 20 };

/* Do what one line asks. */
static enum exit_code run_line(const struct arguments *arguments, const char *line, size_t bytes)
{
    static const struct json_limits limits = {MAX_LINE_BYTES, 64, ERROR_TOO_LARGE, ERROR_BAD_REQUEST};
    struct error error;
    cJSON *wish;
    int code = json_parse(&wish, line, bytes, &limits, "a line of graphs", &error);
    if (code) {
        complain(code, &error);
        return EXIT_USAGE;
    }
    struct arguments one = *arguments;
    one.json = true;
    one.source = json_text(wish, "workflow");
    one.output = json_text(wish, "output");
    one.input_dir = json_text(wish, "input_dir");
    one.dry_run = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(wish, "dry_run"));
    enum exit_code exit_code = EXIT_USAGE;
    if (one.source && (one.output || one.dry_run))
        exit_code = graph_command(&one);
    else
        fprintf(stderr, "lancectl: a line of graphs has to name a workflow and an output\n");
    cJSON_Delete(wish);
    return exit_code;
}

enum exit_code graphs_command(const struct arguments *arguments)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t bytes;
    while (!interrupt_signal() && (bytes = getline(&line, &room, stdin)) > 0) {
        const enum exit_code exit_code = run_line(arguments, line, (size_t)bytes);
        printf("{\"exit_code\":%d}\n", exit_code);
        fflush(stdout);
    }
    free(line);
    return interrupt_signal() ? (enum exit_code)(EXIT_INTERRUPTED + interrupt_signal()) : EXIT_OK;
}
