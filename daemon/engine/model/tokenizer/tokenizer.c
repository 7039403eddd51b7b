/* tokenizer.c: see tokenizer.h. Reads the files, cuts text into words and joins the parts:
 * vocabulary.c knows the tokens, bpe.c merges, nfc.c normalises, tokenizer_pattern.h says
 * what a word is.
 *
 * The order is the reference's (Transformers' slow Qwen2 tokenizer): the whole text is
 * normalised first, so "<|im_end|>" followed by a combining mark that melts into its ">"
 * is no special token; then added tokens are found, leftmost and longest first; nothing
 * beside them is stripped; the rest is cut into words and merged.
 */
#include "daemon/engine/model/tokenizer/tokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <limits.h>
#include <pcre2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/engine/model/checkpoint/model_file.h"
#include "daemon/engine/model/tokenizer/bpe.h"
#include "daemon/engine/model/tokenizer/byte_alphabet.h"
#include "daemon/engine/model/tokenizer/nfc.h"
#include "daemon/engine/model/tokenizer/tokenizer_pattern.h"
#include "daemon/engine/model/tokenizer/vocabulary.h"

enum { MAX_FILE_BYTES = 256 << 20 };

struct tokenizer {
    struct vocabulary *vocabulary;
    struct bpe_merges *merges;
    int32_t byte_tokens[256];
    int32_t *added_tokens; /* ids of the tokens that are recognised in text, [added_count] */
    size_t added_count;
    bool starts_added_token[256]; /* by first byte */
    pcre2_code *pattern;
};

/* ---- Files ---- */

static int make_path(char path[PATH_MAX], const char *directory, const char *name, struct error *error)
{
    if (snprintf(path, PATH_MAX, "%s/%s", directory, name) >= PATH_MAX)
        return error_set(error, ERROR_BAD_FILE, "%s: the path is too long", name);
    return 0;
}

static int map_text_file(struct mapped_file *file, const char *directory, const char *name, struct error *error)
{
    char path[PATH_MAX];
    int code = make_path(path, directory, name, error);
    if (!code)
        code = model_file_open(file, path, error);
    if (!code && file->bytes > MAX_FILE_BYTES) {
        mapped_file_close(file);
        code = error_set(error, ERROR_BAD_FILE, "%s: %llu bytes are too many for a tokenizer file", path,
                         (unsigned long long)file->bytes);
    }
    return code;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static int read_json_object(cJSON **out, const char *directory, const char *name, struct error *error)
{
    char path[PATH_MAX];
    int code = make_path(path, directory, name, error);
    return code ? code : model_file_json(out, path, error);
}

static int read_vocabulary(struct tokenizer *tokenizer, const cJSON *object, struct error *error)
{
    for (const cJSON *entry = object->child; entry; entry = entry->next) {
        size_t length = strlen(entry->string);
        char *bytes = malloc(length + 1);
        if (!bytes)
            return error_set(error, ERROR_NO_MEMORY, "no memory for a token of %zu bytes", length);
        long count = byte_alphabet_decode(entry->string, length, bytes);
        int code = 0;
        if (count <= 0)
            code =
                error_set(error, ERROR_BAD_FILE, "token \"%.40s\" is not written in the byte alphabet", entry->string);
        else if (!cJSON_IsNumber(entry) || !(entry->valuedouble >= 0 && entry->valuedouble < VOCABULARY_MAX_IDS) ||
                 entry->valuedouble != (double)(int64_t)entry->valuedouble)
            code = error_set(error, ERROR_BAD_FILE, "the id of \"%.40s\" is not a whole number from 0 to %d",
                             entry->string, VOCABULARY_MAX_IDS - 1);
        else
            code = vocabulary_add(tokenizer->vocabulary, (int64_t)entry->valuedouble, bytes, (size_t)count, error);
        free(bytes);
        if (code)
            return code;
    }
    for (int i = 0; i < 256; i++) {
        char byte = (char)i;
        tokenizer->byte_tokens[i] = vocabulary_find(tokenizer->vocabulary, &byte, 1);
        if (tokenizer->byte_tokens[i] < 0)
            return error_set(error, ERROR_BAD_FILE, "there is no token for byte 0x%02x", i);
    }
    return 0;
}

/* The ids of the two halves of one line of merges.txt, and of what they merge into; is_made is by id. */
static int read_merge(struct tokenizer *tokenizer, const char *line, size_t length, size_t number, bool *is_made,
                      struct error *error)
{
    const char *gap = memchr(line, ' ', length);
    char *bytes = malloc(length + 1);
    if (!bytes)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a merge of %zu bytes", length);
    int32_t left = -1, right = -1, merged = -1;
    if (gap) {
        size_t left_length = (size_t)(gap - line);
        long left_bytes = byte_alphabet_decode(line, left_length, bytes);
        long right_bytes = left_bytes < 0 ? -1 : byte_alphabet_decode(gap + 1, length - left_length - 1,
                                                                      bytes + left_bytes);
        if (left_bytes > 0 && right_bytes > 0) {
            left = vocabulary_find(tokenizer->vocabulary, bytes, (size_t)left_bytes);
            right = vocabulary_find(tokenizer->vocabulary, bytes + left_bytes, (size_t)right_bytes);
            merged = vocabulary_find(tokenizer->vocabulary, bytes, (size_t)(left_bytes + right_bytes));
        }
    }
    free(bytes);
    if (left < 0 || right < 0 || merged < 0)
        return error_set(error, ERROR_BAD_FILE, "line %zu is not two tokens of vocab.json that join to a third",
                         number);
    is_made[merged] = true;
    return bpe_merges_add(tokenizer->merges, left, right, merged, error);
}

static int read_merge_lines(struct tokenizer *tokenizer, const char *text, size_t length, bool *is_made,
                            struct error *error)
{
    static const char version[] = "#version:";
    const char *end = text + length;
    for (size_t number = 1; text < end; number++) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        const char *next = line_end ? line_end + 1 : end;
        if (!line_end)
            line_end = end;
        while (line_end > text && is_blank(line_end[-1]))
            line_end--;
        size_t line_length = (size_t)(line_end - text);
        bool is_version =
            number == 1 && line_length >= sizeof version - 1 && !memcmp(text, version, sizeof version - 1);
        if (line_length && !is_version) {
            int code = read_merge(tokenizer, text, line_length, number, is_made, error);
            if (code)
                return code;
        }
        text = next;
    }
    return 0;
}

/* A file that was cut off between two lines would give wrong tokens without a word; so every token of more than one
 * byte has to be made by a line. */
static int read_merges(struct tokenizer *tokenizer, const char *text, size_t length, struct error *error)
{
    const struct vocabulary *vocabulary = tokenizer->vocabulary;
    bool *is_made = calloc((size_t)vocabulary_id_limit(vocabulary), sizeof *is_made);
    if (!is_made)
        return error_set(error, ERROR_NO_MEMORY, "no memory to read the merges");
    int code = read_merge_lines(tokenizer, text, length, is_made, error);
    for (int32_t id = 0, seen = 0; !code && seen < vocabulary_count(vocabulary); id++) {
        size_t bytes;
        const char *token = vocabulary_bytes(vocabulary, id, &bytes);
        if (!token)
            continue;
        seen++;
        if (bytes > 1 && !is_made[id])
            code =
                error_set(error, ERROR_BAD_FILE,
                          "no line makes token %d (\"%.40s\") of vocab.json; the file is cut off or of another model",
                          (int)id, token);
    }
    free(is_made);
    return code;
}

static int read_added_token(struct tokenizer *tokenizer, const cJSON *entry, struct error *error)
{
    char *end;
    long id = strtol(entry->string, &end, 10);
    const char *content = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "content"));
    if (*end || end == entry->string || !content || !*content)
        return error_set(error, ERROR_BAD_FILE, "added token \"%.40s\" has no id or no content", entry->string);
    static const char *const flags[] = {"lstrip", "rstrip", "single_word"};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(entry, flags[i])))
            return error_set(error, ERROR_BAD_FILE, "added token \"%.40s\" asks for %s, which no Lance tokenizer does",
                             content, flags[i]);
    int code = vocabulary_add(tokenizer->vocabulary, id, content, strlen(content), error);
    if (code)
        return code;
    tokenizer->added_tokens[tokenizer->added_count++] = (int32_t)id;
    tokenizer->starts_added_token[(unsigned char)*content] = true;
    return 0;
}

static int read_added_tokens(struct tokenizer *tokenizer, const cJSON *config, struct error *error)
{
    const cJSON *added = cJSON_GetObjectItemCaseSensitive(config, "added_tokens_decoder");
    if (!cJSON_IsObject(added))
        return error_set(error, ERROR_BAD_FILE, "there is no object \"added_tokens_decoder\"");
    tokenizer->added_tokens = calloc((size_t)cJSON_GetArraySize(added) + 1, sizeof *tokenizer->added_tokens);
    if (!tokenizer->added_tokens)
        return error_set(error, ERROR_NO_MEMORY, "no memory for the added tokens");
    for (const cJSON *entry = added->child; entry; entry = entry->next) {
        int code = read_added_token(tokenizer, entry, error);
        if (code)
            return code;
    }
    return 0;
}

static int read_files(struct tokenizer *tokenizer, const char *directory, struct error *error)
{
    cJSON *object;
    int code = read_json_object(&object, directory, "vocab.json", error);
    if (code)
        return code;
    code = read_vocabulary(tokenizer, object, error);
    cJSON_Delete(object);
    if (code)
        return error_prefix(error, "%s/vocab.json", directory);

    struct mapped_file file;
    code = map_text_file(&file, directory, "merges.txt", error);
    if (code)
        return code;
    code = read_merges(tokenizer, (const char *)file.data, file.bytes, error);
    mapped_file_close(&file);
    if (code)
        return error_prefix(error, "%s/merges.txt", directory);

    code = read_json_object(&object, directory, "tokenizer_config.json", error);
    if (code)
        return code;
    code = read_added_tokens(tokenizer, object, error);
    cJSON_Delete(object);
    return code ? error_prefix(error, "%s/tokenizer_config.json", directory) : 0;
}

static int compile_pattern(struct tokenizer *tokenizer, struct error *error)
{
    int number;
    PCRE2_SIZE offset;
    tokenizer->pattern = pcre2_compile((PCRE2_SPTR)TOKENIZER_PATTERN, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                                       &number, &offset, NULL);
    if (!tokenizer->pattern) {
        char text[120];
        pcre2_get_error_message(number, (PCRE2_UCHAR *)text, sizeof text);
        return error_set(error, number == PCRE2_ERROR_HEAP_FAILED ? ERROR_NO_MEMORY : ERROR_INTERNAL,
                         "PCRE2 refuses the tokenizer's pattern at %zu: %s", offset, text);
    }
    pcre2_jit_compile(tokenizer->pattern, PCRE2_JIT_COMPLETE); /* without it, matching is interpreted */
    return 0;
}

int tokenizer_open(struct tokenizer **out, const char *directory, struct error *error)
{
    *out = NULL;
    struct tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
    if (!tokenizer)
        return error_set(error, ERROR_NO_MEMORY, "no memory for a tokenizer");
    int code = vocabulary_open(&tokenizer->vocabulary, error);
    if (!code)
        code = bpe_merges_open(&tokenizer->merges, error);
    if (!code)
        code = read_files(tokenizer, directory, error);
    if (!code)
        code = compile_pattern(tokenizer, error);
    if (code) {
        tokenizer_close(tokenizer);
        return code;
    }
    *out = tokenizer;
    return 0;
}

void tokenizer_close(struct tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    vocabulary_close(tokenizer->vocabulary);
    bpe_merges_close(tokenizer->merges);
    free(tokenizer->added_tokens);
    pcre2_code_free(tokenizer->pattern);
    free(tokenizer);
}

int tokenizer_size(const struct tokenizer *tokenizer)
{
    return vocabulary_count(tokenizer->vocabulary);
}

const char *tokenizer_bytes(const struct tokenizer *tokenizer, int32_t id, size_t *length)
{
    return vocabulary_bytes(tokenizer->vocabulary, id, length);
}

/* ---- Encoding ---- */

/* One call of tokenizer_encode: what it has made so far and the memory it works in. */
struct encoding {
    const struct tokenizer *tokenizer;
    int32_t *ids;
    size_t count, capacity;
    pcre2_match_data *match;
    pcre2_match_context *limits;
    struct bpe_work work;
};

static int reserve_ids(struct encoding *encoding, size_t more, struct error *error)
{
    if (more <= encoding->capacity - encoding->count)
        return 0;
    size_t capacity = 2 * encoding->capacity + more;
    int32_t *ids = realloc(encoding->ids, capacity * sizeof *ids);
    if (!ids)
        return error_set(error, ERROR_NO_MEMORY, "no memory for %zu tokens", capacity);
    encoding->ids = ids;
    encoding->capacity = capacity;
    return 0;
}

/* A word starts as one token a byte and is merged where it stands, at the end of the ids. */
static int encode_word(struct encoding *encoding, const char *word, size_t length, struct error *error)
{
    int code = reserve_ids(encoding, length, error);
    if (code)
        return code;
    int32_t *tokens = encoding->ids + encoding->count;
    for (size_t i = 0; i < length; i++)
        tokens[i] = encoding->tokenizer->byte_tokens[(unsigned char)word[i]];
    code = bpe_merge(encoding->tokenizer->merges, &encoding->work, tokens, &length, error);
    if (!code)
        encoding->count += length;
    return code;
}

/* The pattern goes over a run of spaces a few times at most; a limit in proportion to the text stops anything worse
 * instead of letting it hang. */
static uint32_t match_limit(size_t length)
{
    return length < UINT32_MAX / 32 ? 10000 + 16 * (uint32_t)length : UINT32_MAX / 2;
}

/* Text without added tokens. */
static int encode_plain(struct encoding *encoding, const char *text, size_t length, struct error *error)
{
    size_t at = 0;
    while (at < length) {
        const pcre2_code *pattern = encoding->tokenizer->pattern;
        int result = pcre2_match(pattern, (PCRE2_SPTR)text, length, at, PCRE2_NO_UTF_CHECK, encoding->match,
                                 encoding->limits);
        if (result == PCRE2_ERROR_JIT_STACKLIMIT)
            result = pcre2_match(pattern, (PCRE2_SPTR)text, length, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                                 encoding->match, encoding->limits);
        if (result == PCRE2_ERROR_NOMATCH)
            return 0;
        if (result < 0) {
            char message[120];
            pcre2_get_error_message(result, (PCRE2_UCHAR *)message, sizeof message);
            return error_set(error, result == PCRE2_ERROR_NOMEMORY ? ERROR_NO_MEMORY : ERROR_TOO_LARGE,
                             "cannot cut the text into words at byte %zu: %s", at, message);
        }
        const PCRE2_SIZE *span = pcre2_get_ovector_pointer(encoding->match);
        int code = encode_word(encoding, text + span[0], span[1] - span[0], error);
        if (code)
            return code;
        at = span[1];
    }
    return 0;
}

/* The longest added token at the start of the text, or -1. */
static int32_t added_token_at(const struct tokenizer *tokenizer, const char *text, size_t length, size_t *token_length)
{
    int32_t longest = -1;
    *token_length = 0;
    if (!tokenizer->starts_added_token[(unsigned char)*text])
        return -1;
    for (size_t i = 0; i < tokenizer->added_count; i++) {
        size_t candidate_length;
        const char *bytes = vocabulary_bytes(tokenizer->vocabulary, tokenizer->added_tokens[i], &candidate_length);
        if (candidate_length > *token_length && candidate_length <= length && !memcmp(text, bytes, candidate_length)) {
            longest = tokenizer->added_tokens[i];
            *token_length = candidate_length;
        }
    }
    return longest;
}

static int encode_text(struct encoding *encoding, const char *text, size_t length, struct error *error)
{
    size_t plain_start = 0, at = 0;
    while (at < length) {
        size_t token_length;
        int32_t token = added_token_at(encoding->tokenizer, text + at, length - at, &token_length);
        if (token < 0) {
            at++;
            continue;
        }
        int code = encode_plain(encoding, text + plain_start, at - plain_start, error);
        if (!code)
            code = reserve_ids(encoding, 1, error);
        if (code)
            return code;
        encoding->ids[encoding->count++] = token;
        at += token_length;
        plain_start = at;
    }
    return encode_plain(encoding, text + plain_start, length - plain_start, error);
}

int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, int32_t **ids, size_t *count,
                     struct error *error)
{
    *ids = NULL;
    *count = 0;
    char *normal;
    size_t length;
    int code = nfc_normalise(text, strlen(text), &normal, &length, error);
    if (code)
        return code;

    struct encoding encoding = {.tokenizer = tokenizer};
    encoding.match = pcre2_match_data_create_from_pattern(tokenizer->pattern, NULL);
    encoding.limits = pcre2_match_context_create(NULL);
    if (!encoding.match || !encoding.limits) {
        code = error_set(error, ERROR_NO_MEMORY, "no memory to tokenize");
    } else {
        pcre2_set_match_limit(encoding.limits, match_limit(length));
        code = encode_text(&encoding, normal, length, error);
    }
    if (!code && encoding.count) {
        *ids = encoding.ids;
        *count = encoding.count;
    } else {
        free(encoding.ids);
    }
    bpe_work_free(&encoding.work);
    pcre2_match_data_free(encoding.match);
    pcre2_match_context_free(encoding.limits);
    free(normal);
    return code;
}

/* ---- Decoding ---- */

/* The length of the well-formed UTF-8 character at the start, or 0; *bad is then the length of the longest start of
 * a character (at least 1), which Python replaces by one U+FFFD. */
static size_t character_length(const unsigned char *bytes, size_t length, size_t *bad)
{
    *bad = 1;
    unsigned char first = bytes[0];
    if (first < 0x80)
        return first ? 1 : 0;
    size_t expected = first >= 0xc2 && first <= 0xdf ? 2 : first >= 0xe0 && first <= 0xef ? 3
                    : first >= 0xf0 && first <= 0xf4 ? 4 : 0;
    if (!expected)
        return 0;
    unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    for (size_t i = 1; i < expected; i++) {
        if (i >= length || bytes[i] < low || bytes[i] > high)
            return 0;
        low = 0x80;
        high = 0xbf;
        *bad = i + 1;
    }
    return expected;
}

/* `out` holds 3 * length + 1. */
static void replace_invalid_utf8(const unsigned char *bytes, size_t length, char *out)
{
    static const char replacement[] = "\xef\xbf\xbd";
    while (length) {
        size_t bad, used = character_length(bytes, length, &bad);
        const void *from = used ? (const void *)bytes : replacement;
        size_t copied = used ? used : sizeof replacement - 1;
        memcpy(out, from, copied);
        out += copied;
        used = used ? used : bad;
        bytes += used;
        length -= used;
    }
    *out = '\0';
}

int tokenizer_decode(const struct tokenizer *tokenizer, const int32_t *ids, size_t count, char **text,
                     struct error *error)
{
    *text = NULL;
    size_t total = 0, length;
    for (size_t i = 0; i < count; i++) {
        if (!tokenizer_bytes(tokenizer, ids[i], &length))
            return error_set(error, ERROR_BAD_REQUEST, "token id %d is not in the vocabulary", ids[i]);
        total += length;
    }
    char *bytes = malloc(total + 1);
    *text = malloc(3 * total + 1);
    if (!bytes || !*text) {
        free(bytes);
        free(*text);
        *text = NULL;
        return error_set(error, ERROR_NO_MEMORY, "no memory for %zu bytes of text", total);
    }
    size_t at = 0;
    for (size_t i = 0; i < count; i++) {
        const char *token = tokenizer_bytes(tokenizer, ids[i], &length);
        memcpy(bytes + at, token, length);
        at += length;
    }
    replace_invalid_utf8((const unsigned char *)bytes, total, *text);
    free(bytes);
    return 0;
}
