/* libFuzzer target for the reader of saved jobs. Any input must be taken or refused with words, whatever it says: no
 * crash, no hang, no memory beyond the parts that the job has. */
#include <stdlib.h>
#include <string.h>

#include "daemon/engine/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct state_sizes jobs[] = {
        {.latents = 8, .encoded = 4, .items = 2, .item_bytes = 3, .item_steps = 2, .steps = {1, 1, 1, 1, 3, 4, 0}},
        {.tokens = 4, .token_ids = 9, .token_values = 2, .steps = {1, 1, 0, 1, 0, 0, 4}},
    };
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        struct state_identity identity = {.build = "b", .backend = "c", .model = "m", .request = "r"};
        struct job_state state;
        struct error error = {0};
        void *again = NULL;
        size_t bytes;
        const int code = job_state_read(&state, &identity, &jobs[i], data, size, &error);
        if (code ? !error.text[0] || code == ERROR_INTERNAL
                 : job_state_write(&state, &identity, &jobs[i], &again, &bytes, &error) != 0)
            abort();
        free(again);
        job_state_free(&state);
    }
    return 0;
}
