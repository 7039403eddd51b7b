/* Tests of base/sha256.c against the examples of FIPS 180-4 (NIST's "SHA-256 example values"). */
#include "base/sha256.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void assert_hash(const char *text, size_t repeats, const char *expected)
{
    struct sha256 sha;
    char hex[65];
    sha256_start(&sha);
    for (size_t i = 0; i < repeats; i++)
        sha256_add(&sha, text, strlen(text));
    sha256_finish(&sha, hex);
    assert_string_equal(hex, expected);
}

static void published_examples_give_the_published_hashes(void **state)
{
    (void)state;
    assert_hash("", 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert_hash("abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    assert_hash("aaaaaaaaaa", 100000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_examples_give_the_published_hashes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
