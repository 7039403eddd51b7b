/* findings.c: see findings.h. */
#include "tools/lancectl/findings.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "tools/lancectl/say.h"

static const char *const states[] = {"ok", "note", "problem"};

void findings_begin(struct findings *findings, bool json)
{
    *findings = (struct findings){.list = json_array(), .json = json, .exit_code = EXIT_OK};
}

static int gravity(enum exit_code exit_code)
{
    return exit_code == EXIT_OK          ? 0
           : exit_code == EXIT_NOT_READ  ? 2
           : exit_code == EXIT_REFUSED   ? 3
           : exit_code == EXIT_NO_DAEMON ? 4
                                         : 1;
}

void findings_add(struct findings *findings, enum finding state, enum exit_code exit_code, const char *about,
                  const char *format, ...)
{
    char *text = NULL;
    va_list arguments;
    va_start(arguments, format);
    if (vasprintf(&text, format, arguments) < 0)
        text = NULL;
    va_end(arguments);
    if (state == FINDING_PROBLEM && gravity(exit_code) > gravity(findings->exit_code))
        findings->exit_code = exit_code;
    cJSON *finding = json_object();
    json_add_text(finding, "about", about);
    json_add_text(finding, "state", states[state]);
    json_add_text(finding, "text", text);
    json_append(findings->list, finding);
    if (!findings->json) {
        say(stdout, "%-8s %-10s %s\n", states[state], about, text ? text : "no memory");
        fflush(stdout);
    }
    free(text);
}

enum exit_code findings_end(struct findings *findings, cJSON *details)
{
    enum exit_code exit_code = findings->exit_code;
    if (findings->json) {
        json_add_number(details, "exit_code", exit_code);
        json_add(details, "findings", findings->list);
        char *text = json_print(details);
        if (text)
            say(stdout, "%s\n", text);
        else
            exit_code = EXIT_FAILED;
        cJSON_free(text);
    } else {
        cJSON_Delete(findings->list);
        puts(exit_code == EXIT_OK ? "all well" : "not all is well: see the lines with \"problem\"");
    }
    cJSON_Delete(details);
    return exit_code;
}
