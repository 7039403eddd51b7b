/* library.h: NVIDIA's libraries that need not be there: looked for and opened at run time, in the system, a CUDA
 * Toolkit or a Python environment's packages. */
#ifndef LANCE_CUDA_LIBRARY_H
#define LANCE_CUDA_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>

struct library_place {
    const char *variable;   /* of the environment: names the file instead of the search, or, when it is empty, none */
    const char *sonames[2]; /* as the system knows it, the best first; NULL for none */
    const char *pattern;    /* its file's name as glob(3) takes it */
};

/* The library for dlsym and dlclose, or NULL. */
void *library_open(const struct library_place *place);
void *library_open_file(const char *file);
void *library_open_matching(const char *pattern); /* glob(3); the last one that can be opened */

struct library_function {
    void *to; /* a pointer to a function */
    const char *name;
};

/* False when one of them is missing, or `library` is NULL. */
bool library_functions(void *library, const struct library_function *functions, size_t count);

void library_close(void *library); /* NULL is allowed */

#endif
