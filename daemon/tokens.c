/* tokens.c: see tokens.h. */
#include "daemon/tokens.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text_file.h"
#include "base/sha256.h"
#include "protocol/token.h"

static const char name_characters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
static const char blanks[] = " \t\r";

struct token {
    struct identity who;
    char hash[SHA256_HEX_BYTES]; /* of its secret */
};

struct tokens {
    const char *path; /* NULL: no file */
    pthread_mutex_t lock; /* guards the rest */
    struct token *list;
    int count;
};

static void hash_secret(struct token *token, const char *secret)
{
    sha256_of(secret, strlen(secret), token->hash);
}

/* "NAME SECRET [admin]", which is taken apart. */
static int read_line(struct token *token, char *line, struct error *error)
{
    char *rest, secret[TOKEN_MAX_BYTES + 1];
    const char *name = strtok_r(line, blanks, &rest), *given = strtok_r(NULL, blanks, &rest),
               *right = strtok_r(NULL, blanks, &rest);
    const size_t length = strlen(name);
    *token = (struct token){.who.is_admin = right != NULL};
    if (length > TOKEN_NAME_MAX_BYTES || strspn(name, name_characters) != length)
        return error_set(error, ERROR_BAD_FILE, "a name must have 1 to %d of the characters A-Z a-z 0-9 . _ -",
                         TOKEN_NAME_MAX_BYTES);
    memcpy(token->who.name, name, length);
    if (!given || (right && strcmp(right, "admin") != 0) || strtok_r(NULL, blanks, &rest))
        return error_set(error, ERROR_BAD_FILE, "must be: NAME SECRET, or NAME SECRET admin");
    if (token_read(secret, given, "secret", error) != 0) { /* not by its name: the two may be in the wrong order */
        error->code = ERROR_BAD_FILE;
        return error->code;
    }
    hash_secret(token, secret);
    return 0;
}

/* Two of one name would share their jobs, two of one secret be told apart by nobody. */
static int check_alone(const struct token *list, int count, const struct token *token, struct error *error)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(list[i].who.name, token->who.name) == 0)
            return error_set(error, ERROR_BAD_FILE, "the name \"%s\" is there before", token->who.name);
        if (strcmp(list[i].hash, token->hash) == 0)
            return error_set(error, ERROR_BAD_FILE, "\"%s\" has the secret of \"%s\"", token->who.name,
                             list[i].who.name);
    }
    return 0;
}

/* All lines of the file, into a list of TOKENS_MOST. */
static int read_lines(struct token *list, int *count, char *text, const char *path, struct error *error)
{
    int code = 0, number = 0;
    for (char *line = text, *next; code == 0 && line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        number++;
        line += strspn(line, blanks);
        if (*line == '\0' || *line == '#')
            continue;
        if (*count == TOKENS_MOST)
            return error_set(error, ERROR_BAD_FILE, "--tokens %s: has more than %d tokens", path, TOKENS_MOST);
        code = read_line(&list[*count], line, error);
        if (code == 0)
            code = check_alone(list, *count, &list[*count], error);
        ++*count;
    }
    return code == 0 ? 0 : error_prefix(error, "--tokens %s, line %d", path, number);
}

int tokens_reread(struct tokens *tokens, struct error *error)
{
    char *text;
    int count = 0;
    int code = kept_secret_file_read(&text, tokens->path, TOKENS_FILE_MAX_BYTES, "--tokens", error);
    if (code != 0)
        return code;
    struct token *list = calloc(TOKENS_MOST, sizeof *list);
    if (!list)
        code = error_set(error, ERROR_NO_MEMORY, "--tokens %s: out of memory", tokens->path);
    if (code == 0)
        code = read_lines(list, &count, text, tokens->path, error);
    if (code == 0 && count == 0)
        code = error_set(error, ERROR_BAD_FILE, "--tokens %s: there is no token in it", tokens->path);
    explicit_bzero(text, strlen(text));
    free(text);
    if (code == 0) {
        pthread_mutex_lock(&tokens->lock);
        struct token *before = tokens->list;
        tokens->list = list;
        tokens->count = count;
        pthread_mutex_unlock(&tokens->lock);
        list = before;
    }
    free(list);
    return code;
}

static int take_only(struct tokens *tokens, const char *only, struct error *error)
{
    tokens->list = calloc(1, sizeof *tokens->list);
    if (!tokens->list)
        return error_set(error, ERROR_NO_MEMORY, "token: out of memory");
    tokens->list[0].who.is_admin = true;
    hash_secret(&tokens->list[0], only);
    tokens->count = 1;
    return 0;
}

int tokens_open(struct tokens **out, const char *path, const char *only, struct error *error)
{
    *out = NULL;
    struct tokens *tokens = calloc(1, sizeof *tokens);
    if (!tokens)
        return error_set(error, ERROR_NO_MEMORY, "tokens: out of memory");
    pthread_mutex_init(&tokens->lock, NULL);
    tokens->path = path;
    int code = path ? tokens_reread(tokens, error) : only ? take_only(tokens, only, error) : 0;
    if (code != 0) {
        tokens_close(tokens);
        return code;
    }
    *out = tokens;
    return 0;
}

void tokens_close(struct tokens *tokens)
{
    if (!tokens)
        return;
    free(tokens->list);
    pthread_mutex_destroy(&tokens->lock);
    free(tokens);
}

bool tokens_are_named(const struct tokens *tokens)
{
    return tokens->path != NULL;
}

bool tokens_are_asked_for(const struct tokens *tokens)
{
    return tokens->path || tokens->list;
}

/* 0 where they are equal; takes the same time wherever they differ. */
static unsigned difference(const char a[SHA256_HEX_BYTES], const char b[SHA256_HEX_BYTES])
{
    unsigned all = 0;
    for (int i = 0; i < SHA256_HEX_BYTES; i++)
        all |= (unsigned char)a[i] ^ (unsigned char)b[i];
    return all;
}

bool tokens_find(struct tokens *tokens, const char *given, struct identity *who)
{
    struct token token;
    bool found = false;
    if (strnlen(given, TOKEN_MAX_BYTES + 1) > TOKEN_MAX_BYTES)
        return false;
    hash_secret(&token, given);
    pthread_mutex_lock(&tokens->lock);
    for (int i = 0; i < tokens->count; i++) /* all of them, whichever it is */
        if (difference(tokens->list[i].hash, token.hash) == 0) {
            *who = tokens->list[i].who;
            found = true;
        }
    pthread_mutex_unlock(&tokens->lock);
    return found;
}
