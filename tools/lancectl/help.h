/* help.h: what `lancectl help` prints. */
#ifndef LANCECTL_HELP_H
#define LANCECTL_HELP_H

extern const char *const help_text;

#endif
