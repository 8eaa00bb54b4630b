/* macros.h: the few macros every file may rely on.
 *
 * CLEANUP(fn)    runs fn(&variable) when the variable leaves scope.
 * MOVE(p)        hands a pointer on: yields its value and leaves NULL behind.
 * TRY(expr)      returns expr's value from the calling function if it is negative.
 *                The only macro here that hides control flow; cleanup attributes make it safe.
 * INVARIANT...   our own promises. Compiled in always, also in release builds; prints both sides and
 *                aborts. Never applied to bytes that came from outside: those get an error value. */
#pragma once

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/param.h> /* first: libuv includes it, and its MIN and MAX evaluate twice */

#define CLEANUP(fn)   __attribute__((cleanup(fn)))
#define PRINTF_LIKE(fmt, first) __attribute__((format(printf, fmt, first)))
#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define UNUSED        __attribute__((unused))
#define NORETURN      __attribute__((noreturn))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define MOVE(p)                                                                                    \
    ({                                                                                             \
        __typeof__(p) moved_ = (p);                                                                \
        (p) = NULL;                                                                                \
        moved_;                                                                                    \
    })

#define TRY(expr)                                                                                  \
    do {                                                                                           \
        int try_ = (expr);                                                                         \
        if (try_ < 0) {                                                                            \
            return try_;                                                                           \
        }                                                                                          \
    } while (0)

#undef MIN
#undef MAX
#define MIN(a, b)                                                                                  \
    ({                                                                                             \
        __auto_type min_a_ = (a);                                                                  \
        __auto_type min_b_ = (b);                                                                  \
        min_a_ < min_b_ ? min_a_ : min_b_;                                                         \
    })
#define MAX(a, b)                                                                                  \
    ({                                                                                             \
        __auto_type max_a_ = (a);                                                                  \
        __auto_type max_b_ = (b);                                                                  \
        max_a_ > max_b_ ? max_a_ : max_b_;                                                         \
    })

/* Reports the broken promise on stderr and aborts. */
NORETURN void invariant_failed(
        const char *file, int line, const char *text, uint64_t left, uint64_t right);

#define INVARIANT(cond)                                                                            \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0)) {                                                        \
            invariant_failed(__FILE__, __LINE__, #cond, 0, 0);                                     \
        }                                                                                          \
    } while (0)

#define INVARIANT_CMP_(a, op, b)                                                                   \
    do {                                                                                           \
        uint64_t inv_a_ = (uint64_t)(a);                                                           \
        uint64_t inv_b_ = (uint64_t)(b);                                                           \
        if (__builtin_expect(!(inv_a_ op inv_b_), 0)) {                                            \
            invariant_failed(__FILE__, __LINE__, #a " " #op " " #b, inv_a_, inv_b_);               \
        }                                                                                          \
    } while (0)
#define INVARIANT_EQ(a, b) INVARIANT_CMP_(a, ==, b)
#define INVARIANT_LE(a, b) INVARIANT_CMP_(a, <=, b)
#define INVARIANT_LT(a, b) INVARIANT_CMP_(a, <, b)
