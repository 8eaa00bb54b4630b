#include "daemons/quorate/policy.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "common/conf.h"

static bool is_raftd(const struct child *child)
{
    return strcmp(child->name, "raftd") == 0;
}

static enum policy_verdict after_storage_error(
        struct child *child, uint64_t now_ms, char *ret_reason, size_t reason_bytes)
{
    child->storage_deaths++;
    if (child->storage_deaths > POLICY_STORAGE_DEATHS_MAX) {
        (void)snprintf(ret_reason, reason_bytes,
                "%s met a storage error %u times: look at the disk (dmesg) before starting again",
                child->name, child->storage_deaths);
        return POLICY_GIVE_UP;
    }
    child->restart_at_ms = now_ms + POLICY_STORAGE_WAIT_MS;
    (void)snprintf(ret_reason, reason_bytes, "storage error %u, %u restarts are left",
            child->storage_deaths, POLICY_STORAGE_DEATHS_MAX - child->storage_deaths);
    return POLICY_RESTART;
}

enum policy_verdict policy_decide(struct child *child, int wait_status, uint64_t now_ms,
        int *ret_exit_status, char *ret_reason, size_t reason_bytes)
{
    int status = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;
    uint64_t lived_ms = now_ms - child->started_at_ms;
    char end[64];

    ret_reason[0] = '\0';
    if (is_raftd(child) && status == CONF_EXIT_REMOVED) {
        *ret_exit_status = 0;
        return POLICY_REMOVED;
    }
    if (status == CONF_EXIT_USAGE) {
        *ret_exit_status = CONF_EXIT_USAGE;
        (void)snprintf(ret_reason, reason_bytes,
                "%s refuses its configuration: its last line says why", child->name);
        return POLICY_GIVE_UP;
    }
    if (is_raftd(child) && status == CONF_EXIT_STORAGE) {
        *ret_exit_status = CONF_EXIT_STORAGE;
        return after_storage_error(child, now_ms, ret_reason, reason_bytes);
    }
    if (status == CONF_EXIT_NO_SPACE) {
        child->restart_at_ms = now_ms + POLICY_NO_SPACE_WAIT_MS;
        (void)snprintf(ret_reason, reason_bytes,
                "no space: make some, it is tried again for as long as it takes");
        return POLICY_RESTART;
    }
    if (child->ready) {
        child->early_deaths = 0;
        if (lived_ms >= POLICY_SETTLED_MS) {
            child->backoff_ms = 0;
        }
    } else if (lived_ms < POLICY_EARLY_MS) {
        child->early_deaths++;
    } else {
        child->early_deaths = 0;
        child->backoff_ms = 0;
    }
    if (child->early_deaths >= POLICY_EARLY_DEATHS_MAX) {
        *ret_exit_status = status == CONF_EXIT_STORAGE ? CONF_EXIT_STORAGE : CONF_EXIT_FAILED;
        (void)snprintf(ret_reason, reason_bytes,
                "%s failed to start %u times in a row, the last time with %s: its last lines say "
                "why",
                child->name, child->early_deaths, child_describe_end(wait_status, end));
        return POLICY_GIVE_UP;
    }
    child->backoff_ms = child->backoff_ms == 0
                                ? (uint64_t)POLICY_BACKOFF_MS_MIN
                                : MIN(child->backoff_ms * 2U, (uint64_t)POLICY_BACKOFF_MS_MAX);
    child->restart_at_ms = now_ms + child->backoff_ms;
    return POLICY_RESTART;
}
