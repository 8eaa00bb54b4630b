/* files.h: small files and folders that must be there after a power cut. */
#pragma once

#include "common/err.h"
#include "common/span.h"

/* dir/name holds exactly `content`, durably, or what it held before. */
int files_replace(const char *dir, const char *name, struct span content, struct err *err);

/* Creates it where it is missing, and syncs its parent. */
int files_make_dir(const char *path, unsigned mode, struct err *err);

/* What this user may still write there; UINT64_MAX where nobody can say. */
uint64_t files_space_bytes(const char *path);

/* Removes a folder and the files in it (it has no folders inside). Gone already is fine. */
int files_remove_dir(const char *path, struct err *err);
