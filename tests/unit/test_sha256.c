/* Tests of base/sha256.c against the examples of FIPS 180-4 (NIST's "SHA-256 example values"). */
#include "base/sha256.h"

/* The code for processors without instructions for it, under names of its own. */
#define SHA256_PLAIN
#define sha256_start plain_start
#define sha256_add plain_add
#define sha256_finish plain_finish
#define sha256_of plain_of
#define sha256_is_hex plain_is_hex
#include "base/sha256.c"
#undef sha256_start
#undef sha256_add
#undef sha256_finish
#undef sha256_of
#undef sha256_is_hex

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

/* Every length around the blocks' borders, in one piece and in odd ones, with the processor's
 * instructions and without. */
static void pieces_of_any_length_come_to_the_same(void **state)
{
    (void)state;
    uint8_t bytes[700];
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 37 + i / 7);
    for (size_t length = 0; length <= sizeof bytes; length++) {
        struct sha256 whole, pieces;
        char one[65], other[65];
        sha256_start(&whole);
        sha256_add(&whole, bytes, length);
        sha256_finish(&whole, one);
        plain_start(&pieces);
        for (size_t at = 0, take = 1; at < length; at += take, take = take * 2 % 131) {
            take = take < length - at ? take : length - at;
            plain_add(&pieces, bytes + at, take);
        }
        plain_finish(&pieces, other);
        assert_string_equal(one, other);
    }
}

static void hashes_are_64_lower_case_digits(void **state)
{
    (void)state;
    assert_true(sha256_is_hex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    assert_false(sha256_is_hex(NULL));
    assert_false(sha256_is_hex(""));
    assert_false(sha256_is_hex("00000000000000000000000000000000000000000000000000000000000000000"));
    assert_false(sha256_is_hex("E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"));
    assert_false(sha256_is_hex("../../../../../../../../../../../../../../../../../../etc/passwd"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_examples_give_the_published_hashes),
                                       cmocka_unit_test(pieces_of_any_length_come_to_the_same),
                                       cmocka_unit_test(hashes_are_64_lower_case_digits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
