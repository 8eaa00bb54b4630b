/* crc32c.h: CRC-32C (Castagnoli), with the processor's instruction where it has one.
 *
 * crc32c(0, data, bytes) is the checksum as published; passing an earlier result as `crc` goes on from there,
 * so crc32c(crc32c(0, a), b) is that of a and b together. Any thread. */
#pragma once

#include "common/span.h"

uint32_t crc32c(uint32_t crc, const void *data, size_t bytes);

/* The same by table, on any processor; for tests and as the fallback. */
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t bytes);
