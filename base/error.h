/* error.h: how every fallible function of lanced reports what went wrong.
 *
 * A function that can fail returns 0 or one of the negative codes below and fills
 * the caller's `struct error`. The text is for the user: what is wrong, where, and
 * what to do about it. The code's name (error_name) is what travels on the wire.
 * A struct error is plain memory owned by the caller; nothing is allocated.
 */
#ifndef LANCE_ERROR_H
#define LANCE_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

enum error_code {
    ERROR_NONE = 0,
    ERROR_BAD_REQUEST = -1,  /* the request or its parameters are wrong */
    ERROR_BAD_FILE = -2,     /* a file is missing, damaged or not what it claims */
    ERROR_TOO_LARGE = -3,    /* a size is over a limit, or the job cannot fit in memory */
    ERROR_NO_MEMORY = -4,    /* an allocation failed */
    ERROR_NOT_FOUND = -5,    /* no such job, model or task here */
    ERROR_BUSY = -6,         /* try again later: queue full, address in use */
    ERROR_UNSUPPORTED = -7,  /* well formed, but this build or model cannot do it */
    ERROR_CANCELLED = -8,    /* stopped at the client's wish */
    ERROR_IO = -9,           /* the operating system refused a read, write or connection */
    ERROR_INTERNAL = -10,    /* a defect of lanced itself */
    ERROR_FORBIDDEN = -11    /* the token is missing, wrong, or may not do this */
};

struct error {
    int code;        /* one of enum error_code */
    char text[600];  /* one line, UTF-8, no trailing newline */
};

/* Fill `error` (which may be NULL) and return `code`, so that a caller can write
 * `return error_set(error, ERROR_BAD_FILE, "...")`. */
int error_set(struct error *error, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "prefix: " in front of the text already in `error`; returns error's code. */
int error_prefix(struct error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The wire name of a code, such as "bad_request"; "internal" for an unknown code. */
const char *error_name(int code);

/* The code of a wire name; ERROR_INTERNAL for an unknown name. */
int error_code_of(const char *name);

#ifdef __cplusplus
}
#endif

#endif
