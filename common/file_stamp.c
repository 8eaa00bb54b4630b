#include "common/file_stamp.h"

struct file_stamp file_stamp_of(const struct stat *stat)
{
    return (struct file_stamp){ .device = stat->st_dev,
        .inode = stat->st_ino,
        .bytes = stat->st_size,
        .modified = stat->st_mtim,
        .changed = stat->st_ctim };
}

static bool times_differ(const struct timespec *left, const struct timespec *right)
{
    return left->tv_sec != right->tv_sec || left->tv_nsec != right->tv_nsec;
}

bool file_stamps_differ(const struct file_stamp *left, const struct file_stamp *right)
{
    return left->device != right->device || left->inode != right->inode ||
           left->bytes != right->bytes || times_differ(&left->modified, &right->modified) ||
           times_differ(&left->changed, &right->changed);
}
