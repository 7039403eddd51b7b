/* fuzz_tokenizer.c: a tokenizer's three files, one of them the input without its first byte, which says which one. What
 * opens encodes a text and decodes it to the same. */
#include <stdbool.h>

#include "daemon/engine/model/tokenizer/tokenizer.h"
#include "tests/fuzz/scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const char *const names[] = {"vocab.json", "merges.txt", "tokenizer_config.json"};

/* The small tokenizer beside this file, for what is not the input: 256 bytes, 8 merges and 4 added tokens are read in
 * a fraction of the time of a model's. */
static void put_in_place(const char *name)
{
    char from[PATH_MAX], to[PATH_MAX];
    snprintf(to, sizeof to, "%s/%s", scratch(), name);
    if (!realpath("tests/fuzz/tokenizer", from)) {
        fputs("run this in the repository's folder\n", stderr);
        exit(1);
    }
    snprintf(from + strlen(from), sizeof from - strlen(from), "/%s", name);
    unlink(to);
    if (symlink(from, to) != 0) {
        perror(to);
        exit(1);
    }
}

static void check_text(const struct tokenizer *tokenizer)
{
    static const char text[] = "A red circle, 12 of them: naïve 東京 <|im_end|>\n\n  end";
    struct error error = {0};
    int32_t *ids = NULL;
    size_t count;
    char *back = NULL;
    if (tokenizer_encode(tokenizer, text, &ids, &count, &error) == 0) {
        if (tokenizer_decode(tokenizer, ids, count, &back, &error) != 0)
            abort();
        free(back);
    } else if (error.text[0] == '\0') {
        abort();
    }
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static int last = -1;
    if (bytes == 0)
        return 0;
    const int which = data[0] % 3;
    char path[PATH_MAX];
    struct tokenizer *tokenizer = NULL;
    struct error error = {0};
    for (int i = 0; i < 3 && which != last; i++)
        if (i != which)
            put_in_place(names[i]);
    last = which;
    scratch_write(path, names[which], data + 1, bytes - 1);
    const int code = tokenizer_open(&tokenizer, scratch(), &error);
    if (code == 0)
        check_text(tokenizer);
    else if (error.text[0] == '\0' || code == ERROR_INTERNAL)
        abort();
    tokenizer_close(tokenizer);
    return 0;
}
