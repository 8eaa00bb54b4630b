/* mark.h: whether the state on disk may be trusted.
 *
 * The state is never synced while it runs: it survives a process, and not a file system that lost its cache. So:
 *
 *   <state dir>/MARK   text, replaced durably: clean or not, generation, boot id, device, inode and mount of data.mdb
 *                      (mounted.h), and a nonce. Written "not clean" before the first write transaction, "clean" only
 *                      after the environment was synced.
 *   word               on tmpfs: the nonce, the generation, LMDB's id of the last committed transaction, and whose it is.
 *                      Stored after each commit; gone after an I/O error, a reboot, or when MARK says clean.
 *
 * Trusted is what MARK calls clean, or where all of MARK matches and the environment's transaction id is the word's. A file
 * system that was shut down and mounted again under one boot id shows an older transaction, or another mount.
 * A process killed between commit and word is not trusted: the state is then rebuilt, which is right and only slow. */
#pragma once

#include "common/err.h"

struct mark;

enum mark_verdict {
    MARK_DISTRUSTED,
    MARK_CLEAN,
    MARK_MATCHES, /* trusted if the environment's transaction id is *ret_txn_id */
};

struct mark_config {
    const char *state_dir;
    const char *run_dir;    /* where the word lies if this is tmpfs ... */
    const char *shared_dir; /* ... else here: /dev/shm */
    const char *boot_id;
    const char *sys_dir; /* NULL: /sys */
};

struct mark *mark_new(const struct mark_config *config);
struct mark *mark_free(
        struct mark *mark); /* always NULL, accepts NULL; leaves the files as they are */

/* Judges the environment whose file is data_path. `reason` says why not (static text). */
enum mark_verdict mark_judge(struct mark *mark, uint64_t generation, const char *data_path,
        uint64_t *ret_txn_id, const char **ret_reason);

/* Before the first write transaction: sets the word, if what is written may be trusted after a kill, then MARK to "not clean".
 * Where MARK says so already and matches, nothing is written. */
int mark_set_dirty(struct mark *mark, uint64_t generation, const char *data_path, uint64_t txn_id,
        bool has_word, struct err *err);
void mark_set_txn_id(struct mark *mark, uint64_t txn_id); /* after each commit */

/* After the environment was synced and closed. */
int mark_set_clean(struct mark *mark, uint64_t generation, const char *data_path, struct err *err);

/* MARK's path, for who must remove it without calling anything else. */
const char *mark_path(const struct mark *mark);

/* The word goes: what is written from here on is trusted after a clean end only. */
void mark_drop_word(struct mark *mark);

/* What is there must not be trusted, nor what is written to it: the word goes, and MARK, which may call it clean. */
void mark_distrust(struct mark *mark);
