/* sync_dir.h: makes the names in a folder durable: a file that is synced itself may still be gone under its name after a power cut. */
#pragma once

#include "common/err.h"

int sync_dir(const char *path, struct err *err);
