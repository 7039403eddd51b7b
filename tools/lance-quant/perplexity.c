/* perplexity.c: see perplexity.h. */
#include "tools/lance-quant/perplexity.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mapped_file.h"

enum { WINDOW = 512 };

void expectation_watch(void *context, int token, const float *logits, int vocabulary)
{
    struct expectation *expectation = context;
    if (token + 1 >= expectation->count)
        return;
    double sum = 0;
    float largest = logits[0];
    for (int i = 1; i < vocabulary; i++)
        largest = logits[i] > largest ? logits[i] : largest;
    for (int i = 0; i < vocabulary; i++)
        sum += exp((double)(logits[i] - largest));
    expectation->lost += log(sum) + (double)largest - (double)logits[expectation->ids[token + 1]];
}

static int read_text(char **text, const char *path, struct error *error)
{
    struct mapped_file file;
    const int code = mapped_file_open(&file, path, error);
    if (code != 0)
        return code;
    *text = strndup((const char *)file.data, file.bytes);
    mapped_file_close(&file);
    return *text != NULL ? 0 : error_set(error, ERROR_NO_MEMORY, "%s: no memory to read it", path);
}

int perplexity_of_file(struct text_loss *out, struct lance_model *model, const char *path,
                       const volatile int *interrupted, struct error *error)
{
    int32_t *ids = NULL;
    int count = 0;
    char *text = NULL;
    double lost = 0;
    *out = (struct text_loss){0};
    int code = read_text(&text, path, error);
    if (code == 0 && (code = lance_text_tokens(model, text, &ids, &count, error)) != 0)
        error_prefix(error, "%s", path);
    if (code == 0 && count < 2)
        code = error_set(error, ERROR_BAD_FILE, "%s: has fewer than two tokens", path);
    for (int first = 0; first + 1 < count && code == 0; first += WINDOW) {
        struct expectation window = {ids + first, count - first < WINDOW ? count - first : WINDOW, 0};
        code = *interrupted ? error_set(error, ERROR_CANCELLED, "interrupted")
                            : lance_read(model, window.ids, window.count, expectation_watch, &window, error);
        lost += window.lost;
        out->tokens += window.count - 1;
    }
    if (code == 0)
        out->perplexity = exp(lost / out->tokens);
    free(ids);
    free(text);
    return code;
}
