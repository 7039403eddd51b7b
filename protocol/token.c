/* token.c: see token.h. */
#include "protocol/token.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/text_file.h"
#include "base/utf8.h"

enum { MOST_FILE_BYTES = 4096 };

int token_read(char token[TOKEN_MAX_BYTES + 1], const char *text, const char *what, struct error *error)
{
    size_t length = strcspn(text, "\r\n");
    if (length < TOKEN_MIN_BYTES || length > TOKEN_MAX_BYTES)
        return error_set(error, ERROR_BAD_REQUEST, "%s: the token must have %d to %d characters on one line", what,
                         TOKEN_MIN_BYTES, TOKEN_MAX_BYTES);
    bool is_text = utf8_is_valid(text, length);
    for (size_t i = 0; i < length; i++)
        is_text = is_text && (unsigned char)text[i] >= 0x20 && text[i] != 0x7f;
    if (!is_text)
        return error_set(error, ERROR_BAD_REQUEST, "%s: the token must be text (UTF-8) without control characters",
                         what);
    memcpy(token, text, length);
    token[length] = '\0';
    return 0;
}

int token_read_file(char token[TOKEN_MAX_BYTES + 1], const char *path, const char *what, struct error *error)
{
    char *text;
    int code = secret_file_read(&text, path, MOST_FILE_BYTES, what, error);
    if (code == 0)
        code = token_read(token, text, path, error);
    free(text);
    return code;
}
