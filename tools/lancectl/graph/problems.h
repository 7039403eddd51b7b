/* problems.h: everything that is wrong with a graph, collected before anything is done, a line each. */
#ifndef LANCECTL_GRAPH_PROBLEMS_H
#define LANCECTL_GRAPH_PROBLEMS_H

#include <stdbool.h>

enum { PROBLEMS_SHOWN = 20 };

/* Zeroed by its owner, who calls problems_end. */
struct problems {
    int count;
    bool is_about_files; /* all of them are files that cannot be read */
    char *shown[PROBLEMS_SHOWN];
};

/* Say one on stderr, with "lancectl: " before it; of very many only the first ones, and none again. */
void problem(struct problems *problems, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same for a file that cannot be read. */
void problem_file(struct problems *problems, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Say how many were not shown; that is all of them. */
void problems_end(struct problems *problems);

#endif
