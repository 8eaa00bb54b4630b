#include "daemons/raftd/bootstrap/bootstrap.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/conf_table.h"
#include "common/ids.h"
#include "common/log.h"
#include "common/url.h"
#include "daemons/raftd/bootstrap/compat.h"
#include "daemons/raftd/bootstrap/discovery.h"
#include "daemons/raftd/bootstrap/fetch.h"
#include "daemons/raftd/bootstrap/resolve.h"
#include "version.h"

enum {
    ASK_STATIC_MS = 1000,
    ASK_JOIN_MS = 10000,
    LISTED_BYTES_MAX = 320, /* of the cluster in a refusal: the mend is to fit too */
};

/* The peer URLs of the others in --initial-cluster; the array is the caller's. */
static const char **others_urls(const struct conf *conf, size_t *ret_count)
{
    const char **urls = xcalloc(conf->initial_cluster.count, sizeof *urls);
    size_t count = 0;

    for (size_t i = 0; i < conf->initial_cluster.count; i++) {
        if (strcmp(conf->initial_cluster.items[i].name, conf->name) != 0) {
            urls[count++] = conf->initial_cluster.items[i].url;
        }
    }
    *ret_count = count;
    return urls;
}

static int refuse_known(uint64_t id, struct err *err)
{
    char text[IDS_TEXT_BYTES];

    return err_set(err, -EINVAL,
            "member %s has already been bootstrapped; its data directory was lost or is another: "
            "start it on its old one, or remove the member and add it again (member remove, "
            "member add) and start it with --initial-cluster-state existing",
            ids_text(id, text));
}

static int bootstrap_static(struct loop *loop, struct security *security, const struct conf *conf,
        struct membership *ret_membership, struct err *err)
{
    struct membership membership = { 0 };
    struct fetched *answers = NULL;
    size_t url_count;
    int result = 0;

    TRY(membership_from_conf(conf, &membership, err));
    const char **urls = others_urls(conf, &url_count);
    size_t count = url_count == 0 ? 0
                                  : fetch_members(loop, security, urls, url_count, FETCH_ALL,
                                            ASK_STATIC_MS, &answers);
    for (size_t i = 0; i < count && result == 0; i++) {
        const struct membership_entry *entry =
                membership_find(&answers[i].membership, membership.self_id);
        if (answers[i].cluster_id == membership.cluster_id && entry != NULL &&
                (entry->client_url_count > 0 || entry->removed)) {
            result = refuse_known(membership.self_id, err);
        }
    }
    fetch_free(answers, count);
    free((void *)urls);
    if (result < 0) {
        membership_fini(&membership);
        return result;
    }
    *ret_membership = membership;
    return 0;
}

/* The configuration with these members for --initial-cluster. A view: `members` owns what it adds. */
static int with_members(const struct conf *conf, const char *text, const char *token,
        struct conf *members, struct conf *ret_view, struct err *err)
{
    int row = conf_find_key("initial-cluster", strlen("initial-cluster"));
    char *shared_token = conf->initial_cluster_token;

    INVARIANT(row >= 0);
    TRY(conf_set_value(members, (size_t)row, text, err));
    *ret_view = *conf;
    ret_view->initial_cluster = members->initial_cluster;
    ret_view->texts[row] = members->texts[row];
    if (token != NULL) {
        /* One URL serves one bootstrap, so it keeps the ids of two clusters apart. */
        (void)memcpy(&shared_token, &token, sizeof shared_token);
    }
    ret_view->initial_cluster_token = shared_token;
    return conf_check_bootstrap(ret_view, err);
}

int bootstrap_new(struct loop *loop, struct security *security, const struct conf *conf,
        struct membership *ret_membership, struct err *err)
{
    CLEANUP(conf_fini) struct conf members = { 0 };
    CLEANUP(buf_fini) struct buf found = BUF_INIT;
    struct conf view;

    if (conf->discovery[0] != '\0') {
        TRY(discovery_run(conf, &found, err));
        TRY(with_members(conf, (const char *)found.data, conf->discovery, &members, &view, err));
    } else if (conf->discovery_srv[0] != '\0') {
        TRY(resolve_srv(conf, &found, err));
        TRY(with_members(conf, (const char *)found.data, NULL, &members, &view, err));
    } else {
        return bootstrap_static(loop, security, conf, ret_membership, err);
    }
    return bootstrap_static(loop, security, &view, ret_membership, err);
}

/* How many URLs of --initial-cluster bear this name, and whether each is one of the member's and it has no more. */
static bool matches(const struct conf *conf, const char *name, const struct membership_entry *entry)
{
    size_t count = 0;

    for (size_t i = 0; i < conf->initial_cluster.count; i++) {
        const struct conf_peer *peer = &conf->initial_cluster.items[i];
        bool found = false;
        if (strcmp(peer->name, name) != 0) {
            continue;
        }
        count++;
        for (size_t j = 0; j < entry->url_count && !found; j++) {
            found = url_equal(peer->url, entry->peer_urls[j]);
        }
        if (!found) {
            return false;
        }
    }
    return count == entry->url_count;
}

static const struct membership_entry *match_name(
        const struct conf *conf, const char *name, const struct membership *remote)
{
    for (size_t i = 0; i < remote->count; i++) {
        if (!remote->items[i].removed && matches(conf, name, &remote->items[i])) {
            return &remote->items[i];
        }
    }
    return NULL;
}

/* Refuses with the cluster as it was found between etcd's words; what does not fit is left out. */
static int refuse_lists(
        const struct membership *remote, const char *why, const char *mend, struct err *err)
{
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    char id[IDS_TEXT_BYTES];

    buf_appendf(&text, "{ClusterID:%s Members:[", ids_text(remote->cluster_id, id));
    for (size_t i = 0; i < remote->count && text.bytes < LISTED_BYTES_MAX; i++) {
        const struct membership_entry *entry = &remote->items[i];
        if (entry->removed) {
            continue;
        }
        buf_appendf(&text, "%s{ID:%s PeerURLs:[", text.data[text.bytes - 1] == '[' ? "" : " ",
                ids_text(entry->id, id));
        for (size_t j = 0; j < entry->url_count; j++) {
            buf_appendf(&text, "%s%s", j == 0 ? "" : " ", entry->peer_urls[j]);
        }
        buf_appendf(&text, "] Name:%s}", entry->name);
    }
    buf_append(&text, "]}", sizeof "]}");
    return err_set(err, -EINVAL, "error validating peerURLs %s: %s; %s", (const char *)text.data,
            why, mend);
}

/* The list given and the list that the cluster has must be the same but for names. */
static int check_lists(const struct conf *conf, struct membership *remote, struct err *err)
{
    const struct conf_peers *own = &conf->initial_cluster;
    size_t own_count = 0;
    size_t remote_count = 0;
    char mend[480];

    for (size_t i = 0; i < remote->count; i++) {
        remote_count += !remote->items[i].removed;
    }
    for (size_t i = 0; i < own->count; i++) {
        own_count += i == 0 || strcmp(own->items[i].name, own->items[i - 1].name) != 0;
    }
    if (own_count != remote_count) {
        (void)snprintf(mend, sizeof mend,
                "--initial-cluster names %zu members, the cluster has %zu: add this member first "
                "(member add) and list all members as the cluster has them",
                own_count, remote_count);
        return refuse_lists(remote, "member count is unequal", mend, err);
    }
    for (size_t i = 0; i < own->count; i++) {
        const struct membership_entry *entry = match_name(conf, own->items[i].name, remote);
        if (entry == NULL) {
            (void)snprintf(mend, sizeof mend,
                    "the cluster knows no member with the URLs of %.64s (%.200s): write them in "
                    "--initial-cluster as member list shows them",
                    own->items[i].name, own->items[i].url);
            return refuse_lists(remote, "unmatched member while checking PeerURLs", mend, err);
        }
        if (strcmp(own->items[i].name, conf->name) == 0) {
            remote->self_id = entry->id;
        }
    }
    return 0;
}

static int check_self(const struct conf *conf, struct membership *remote, struct err *err)
{
    TRY(check_lists(conf, remote, err));
    if (remote->self_id == 0) {
        return err_set(err, -EINVAL,
                "couldn't find local name \"%s\" in the initial cluster configuration; "
                "add %s=<peer URL> to --initial-cluster",
                conf->name, conf->name);
    }
    const struct membership_entry *entry = membership_find(remote, remote->self_id);
    return entry->client_url_count > 0 ? refuse_known(remote->self_id, err) : 0;
}

static int join(struct loop *loop, struct security *security, const struct conf *conf,
        struct membership *ret_membership, struct err *err)
{
    struct fetched *answers = NULL;
    size_t url_count;
    const char **urls = others_urls(conf, &url_count);
    size_t count = url_count == 0 ? 0
                                  : fetch_members(loop, security, urls, url_count, FETCH_FIRST,
                                            ASK_JOIN_MS, &answers);
    struct fetched *best = NULL;
    int result;

    free((void *)urls);
    for (size_t i = 0; i < count && best == NULL; i++) {
        best = answers[i].cluster_id != 0 ? &answers[i] : NULL;
    }
    if (best == NULL) {
        result = err_set(err, -EHOSTUNREACH,
                "cannot fetch cluster info from peer urls: could not retrieve cluster information "
                "from the given urls; start a member that is listed in --initial-cluster, or "
                "correct its URL");
    } else {
        best->membership.cluster_id = best->cluster_id;
        result = check_self(conf, &best->membership, err);
        if (result == 0) {
            result = compat_check(span_str(best->version), QUORATE_VERSION, err);
        }
    }
    if (result == 0) {
        char id[IDS_TEXT_BYTES];
        log_notice("raftd.bootstrap.joining", "cluster_id=%s asked=%" PRIx64,
                ids_text(best->cluster_id, id), best->from_id);
        *ret_membership = best->membership;
        best->membership = (struct membership){ 0 };
    }
    fetch_free(answers, count);
    return result;
}

int bootstrap_join(struct loop *loop, struct security *security, const struct conf *conf,
        struct membership *ret_membership, struct err *err)
{
    CLEANUP(conf_fini) struct conf members = { 0 };
    CLEANUP(buf_fini) struct buf found = BUF_INIT;
    struct conf view;

    if (conf->discovery_srv[0] == '\0') {
        return join(loop, security, conf, ret_membership, err);
    }
    TRY(resolve_srv(conf, &found, err));
    TRY(with_members(conf, (const char *)found.data, NULL, &members, &view, err));
    return join(loop, security, &view, ret_membership, err);
}
