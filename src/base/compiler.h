/* compiler.h - the GNU attributes this project uses, spelled once. */
#ifndef FM_BASE_COMPILER_H
#define FM_BASE_COMPILER_H

#define FM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define FM_UNUSED __attribute__((unused))
#define FM_NORETURN __attribute__((noreturn))
#define FM_INLINE static inline __attribute__((always_inline))
#define FM_LIKELY(x) __builtin_expect(!!(x), 1)
#define FM_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define FM_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Our own mistakes stop the program, in release builds too; a user's mistake is an fm_status. */
#define FM_ASSERT(cond) (FM_LIKELY(cond) ? (void)0 : fm_assert_fail(#cond, __FILE__, __LINE__))
FM_NORETURN void fm_assert_fail(const char *cond, const char *file, int line);

#endif
