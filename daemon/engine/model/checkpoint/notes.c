/* notes.c: see notes.h. */
#include "daemon/engine/model/checkpoint/notes.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void notes_add(struct notes *notes, const char *format, ...)
{
    char note[sizeof notes->text];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(note, sizeof note, format, arguments);
    va_end(arguments);
    size_t used = strlen(notes->text), room = sizeof notes->text - used;
    int length = snprintf(notes->text + used, room, "%s%s", used ? "; " : "", note);
    if (length < 0 || (size_t)length >= room)
        strcpy(notes->text + sizeof notes->text - 4, "...");
}
