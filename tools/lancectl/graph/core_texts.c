/* core_texts.c: see core_texts.h. */
#include "tools/lancectl/graph/core_texts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>


int pass_on(struct work *work, struct error *error)
{
    return work_give(work, 0, value_hold(work->input[0].items[0]), error);
}

/* As Python's replace: with nothing to find, before and after every character. */
static char *replaced(const char *text, const char *find, const char *by)
{
    char *made = NULL;
    size_t bytes;
    FILE *out = open_memstream(&made, &bytes);
    const size_t length = strlen(find);
    while (out && *text) {
        const bool is_character = ((unsigned char)*text & 0xc0) != 0x80; /* not inside of one */
        if (length ? !strncmp(text, find, length) : is_character)
            fputs(by, out);
        if (length && !strncmp(text, find, length))
            text += length;
        else
            fputc(*text++, out);
    }
    if (out && !length)
        fputs(by, out);
    if (!out || fclose(out)) {
        free(made);
        return NULL;
    }
    return made;
}

int string_replace(struct work *work, struct error *error)
{
    char *text = replaced(work_text(work, "string"), work_text(work, "find"), work_text(work, "replace"));
    struct value *value = text ? value_of_text(text) : NULL;
    free(text);
    return work_give(work, 0, value, error);
}

int preview_any(struct work *work, struct error *error)
{
    char *text = value_print(work_value(work, "source"));
    struct value *value = text ? value_of_text(text) : NULL;
    if (value)
        report_text(work->context->report, work->node, text);
    free(text);
    return work_give(work, 0, value, error);
}
