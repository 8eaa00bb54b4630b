/* Which versions may be in one cluster. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemons/raftd/bootstrap/compat.h"

static void neighbouring_versions_fit_together(void **state)
{
    static const char *const theirs[] = { "1.4.0", "1.4.99", "1.3.7", "1.5.0" };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(theirs); i++) {
        assert_int_equal(compat_check(span_str(theirs[i]), "1.4.2", NULL), 0);
    }
}

static void others_are_refused_with_both_versions(void **state)
{
    static const char *const theirs[] = { "1.2.9", "1.6.0", "2.4.2", "0.4.2", "", "1.4", "1.4.2x",
        "1.4.2.3", "new", "-1.4.2", "99999999999.4.2" };
    (void)state;

    for (size_t i = 0; i < ARRAY_COUNT(theirs); i++) {
        struct err err = { 0 };
        assert_int_equal(compat_check(span_str(theirs[i]), "1.4.2", &err), -EINVAL);
        assert_non_null(strstr(err.text, "incomptible with current running cluster; "));
        assert_non_null(strstr(err.text, theirs[i][0] == '\0' ? "unknown" : theirs[i]));
        assert_non_null(strstr(err.text, "1.4.2"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(neighbouring_versions_fit_together),
        cmocka_unit_test(others_are_refused_with_both_versions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
