/* crc32c.c: eight bytes a step, by the SSE4.2 instruction or by eight tables ("slicing by eight"). */
#include "common/crc32c.h"

#include <endian.h>
#include <pthread.h>

enum {
    SLICES = 8
};

static const uint32_t polynomial_reflected = 0x82f63b78;

/* Written once under crc32c_once, constant afterwards. */
static uint32_t crc32c_tables[SLICES][256];
static pthread_once_t crc32c_once = PTHREAD_ONCE_INIT;

static void fill_tables(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc & 1) != 0 ? (crc >> 1) ^ polynomial_reflected : crc >> 1;
        }
        crc32c_tables[0][byte] = crc;
    }
    for (int slice = 1; slice < SLICES; slice++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t before = crc32c_tables[slice - 1][byte];
            crc32c_tables[slice][byte] = (before >> 8) ^ crc32c_tables[0][before & 0xff];
        }
    }
}

static uint64_t load_le64(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    return le64toh(word);
}

uint32_t crc32c_portable(uint32_t crc, const void *data, size_t bytes)
{
    (void)pthread_once(&crc32c_once, fill_tables);
    const uint8_t *at = data;
    crc = ~crc;
    for (; bytes >= 8; bytes -= 8, at += 8) {
        uint64_t word = load_le64(at) ^ crc;
        crc = 0;
        for (int slice = 0; slice < SLICES; slice++) {
            crc ^= crc32c_tables[SLICES - 1 - slice][(word >> (8 * slice)) & 0xff];
        }
    }
    for (; bytes > 0; bytes--, at++) {
        crc = (crc >> 8) ^ crc32c_tables[0][(crc ^ *at) & 0xff];
    }
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(
        uint32_t crc, const void *data, size_t bytes)
{
    const uint8_t *at = data;
    uint64_t wide = (uint32_t)~crc;
    for (; bytes >= 8; bytes -= 8, at += 8) {
        wide = __builtin_ia32_crc32di(wide, load_le64(at));
    }
    uint32_t narrow = (uint32_t)wide;
    for (; bytes > 0; bytes--, at++) {
        narrow = __builtin_ia32_crc32qi(narrow, *at);
    }
    return ~narrow;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t bytes)
{
    /* A load and a test: the C library has asked the processor before main. */
    if (__builtin_cpu_supports("sse4.2")) {
        return crc32c_sse42(crc, data, bytes);
    }
    return crc32c_portable(crc, data, bytes);
}
#else
uint32_t crc32c(uint32_t crc, const void *data, size_t bytes)
{
    return crc32c_portable(crc, data, bytes);
}
#endif
