/* notes.h: remarks about a checkpoint, collected into one line of text: "first; second; third".
 *
 * Plain memory of the caller, nothing is allocated; what does not fit is cut off with "...".
 */
#ifndef LANCE_NOTES_H
#define LANCE_NOTES_H

struct notes {
    char text[2000];
};

void notes_add(struct notes *notes, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
