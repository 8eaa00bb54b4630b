/* The check values are those of RFC 3720, appendix B.4. */
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include "common/crc32c.h"

static void gives_the_published_check_values(void **state UNUSED)
{
    uint8_t zeros[32] = { 0 };
    uint8_t ones[32];
    uint8_t rising[32];
    memset(ones, 0xff, sizeof(ones));
    for (uint8_t i = 0; i < 32; i++) {
        rising[i] = i;
    }
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(0, zeros, 32), 0x8a9136aa);
    assert_int_equal(crc32c(0, ones, 32), 0x62a8ab43);
    assert_int_equal(crc32c(0, rising, 32), 0x46dd794e);
    assert_int_equal(crc32c_portable(0, "123456789", 9), 0xe3069283);
}

static void table_and_instruction_agree_at_every_length_and_alignment(void **state UNUSED)
{
    uint8_t bytes[300];
    uint32_t random = 1;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        random = random * 1664525 + 1013904223;
        bytes[i] = (uint8_t)(random >> 24);
    }
    for (size_t from = 0; from < 9; from++) {
        for (size_t length = 0; length + from <= sizeof(bytes); length++) {
            assert_int_equal(
                    crc32c(7, bytes + from, length), crc32c_portable(7, bytes + from, length));
        }
    }
}

static void goes_on_from_an_earlier_result(void **state UNUSED)
{
    static const char digits[] = "123456789";

    for (size_t cut = 0; cut <= 9; cut++) {
        uint32_t front = crc32c(0, digits, cut);
        assert_int_equal(crc32c(front, digits + cut, 9 - cut), 0xe3069283);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gives_the_published_check_values),
        cmocka_unit_test(table_and_instruction_agree_at_every_length_and_alignment),
        cmocka_unit_test(goes_on_from_an_earlier_result),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
