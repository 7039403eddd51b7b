/* failing.h: which call of a program is to fail. Shared by the libraries that are preloaded to make allocations fail
 * (failing_memory.c) and calls of the system and of nng (failing_calls.c).
 *
 * The program and the test share one mapped file, named by FAILING. The test writes what is to fail into it while the
 * program is idle: the n-th call from now on, or the first one at a certain call site. A site is the last SITE_FRAMES
 * return addresses, hashed; in a program whose addresses are not randomised it has the same hash in every run. Sites
 * are listed in the order in which they were met, when the test asks for it. Any thread.
 */
#ifndef LANCE_TESTS_FAILING_H
#define LANCE_TESTS_FAILING_H

#include <stdbool.h>
#include <stdint.h>

#define FAILING_CALLER ((uintptr_t)__builtin_return_address(0))

struct code {
    uintptr_t begin, end;
};

/* Where the code of the program is, and of the first library with such a name: known when a constructor has run. */
extern struct code failing_program, failing_nng, failing_sqlite, failing_lsan;

static inline bool failing_is_in(struct code code, uintptr_t address)
{
    return address >= code.begin && address < code.end;
}

/* Whether the call that is asked for is to fail. Called by each function that is replaced, which is inlined into
 * none. `is_watched` says whether calls by such a caller count at all. */
bool failing_is_to_fail(uintptr_t caller, bool (*is_watched)(uintptr_t caller));

/* For what a library does for itself in between: nothing of it counts. Nests. */
bool failing_enter(void);
void failing_leave(bool was_inside);

#endif
