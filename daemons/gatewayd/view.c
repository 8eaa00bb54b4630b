/* view.c: the state as this turn sees it. One transaction a turn; the environment is opened when there is one, and
 * exchanged when stored says that it moved on to another generation. What lies on the disk is not opened before stored
 * has vouched for it: after a power loss it may be a state of which parts are missing.
 *
 * A page that cannot be read ends the process. It leaves a note of which generation that was; the next life does not open
 * that one, and its hello has stored make another. */
#include "daemons/gatewayd/shell.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/loop.h"
#include "common/sigbus.h"

enum {
    REOPEN_INTERVAL_MS = 20
};

static const char note_path[] = "state.unreadable"; /* in the run directory */

static int open_current(struct gatewayd *gw, struct err *err)
{
    char dir[STATE_PATH_BYTES_MAX];
    char file[STATE_PATH_BYTES_MAX + sizeof "/data.mdb"];
    uint64_t generation = gw->view.vouched_generation;

    if (generation == 0) {
        return err_set(err, -ENOENT, "stored has not said which state is to be trusted");
    }
    if (generation == gw->view.unreadable_generation) {
        return err_set(
                err, -ENOENT, "a page of the state cannot be read; stored makes another one");
    }
    state_generation_path(gw->view.state_dir, generation, dir);
    (void)snprintf(file, sizeof file, "%s/data.mdb", dir);
    sigbus_guard(&(struct sigbus_guarded){ .event = "gatewayd.state.unreadable",
            .file = file,
            .note = note_path,
            .note_number = generation });
    TRY(state_open_readonly(dir, 0, &gw->view.state, err));
    TRY(state_read_new(gw->view.state, &gw->view.read, err));
    (void)sigbus_mapped();
    gw->view.meta.generation = generation;
    return 0;
}

void view_take_note(struct gatewayd *gw)
{
    char text[24] = "";
    int fd = open(note_path, O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        ssize_t got = read(fd, text, sizeof text - 1);
        (void)got;
        (void)close(fd);
        gw->view.unreadable_generation = strtoull(text, NULL, 10);
    }
}

void view_vouch(struct gatewayd *gw, uint64_t generation)
{
    gw->view.vouched_generation = generation;
    if (gw->view.unreadable_generation != 0 && gw->view.unreadable_generation != generation) {
        gw->view.unreadable_generation = 0;
        (void)unlink(note_path);
    }
}

void view_close(struct gatewayd *gw)
{
    INVARIANT(!gw->view.reading);
    sigbus_unguard();
    gw->view.read = state_read_free(gw->view.read);
    if (gw->view.state != NULL && gw->jobs != NULL && jobs_retire(gw, gw->view.state)) {
        gw->view.state = NULL;
    }
    gw->view.state = state_close(gw->view.state);
}

static int try_open(struct gatewayd *gw)
{
    struct err err = { 0 };
    uint64_t now_ms = loop_now_ms(gw->loop);

    if (now_ms < gw->view.retry_at_ms) {
        return -EAGAIN;
    }
    int code = open_current(gw, &err);
    if (code < 0) {
        gw->view.retry_at_ms = now_ms + REOPEN_INTERVAL_MS;
        if (code != -ENOENT) {
            log_warning_err(&err, "gatewayd.state.unreadable", "action=retry");
        }
        view_close(gw);
    }
    return code;
}

static void note_meta(struct gatewayd *gw)
{
    const struct state_meta *meta = &gw->view.meta;

    if (meta->applied_index > gw->applied_index) {
        gw->applied_index = meta->applied_index;
        gw->applied_term = meta->applied_term;
    }
    if (meta->cluster_id != 0 && meta->cluster_id != gw->cluster_id) {
        answer_set_cluster_id(gw, meta->cluster_id);
    }
}

int view_begin(struct gatewayd *gw)
{
    struct err err = { 0 };

    INVARIANT(!gw->view.reading);
    if (gw->view.state == NULL) {
        TRY(try_open(gw));
    }
    int code = state_read_begin(gw->view.read, &err);
    if (code == 0) {
        code = state_read_meta(gw->view.read, &gw->view.meta, &err);
        if (code < 0) {
            state_read_end(gw->view.read);
        }
    }
    if (code < 0) {
        log_warning_err(&err, "gatewayd.state.unreadable", "action=reopen");
        view_close(gw);
        gw->view.retry_at_ms = loop_now_ms(gw->loop) + REOPEN_INTERVAL_MS;
        return code;
    }
    gw->view.reading = true;
    note_meta(gw);
    return 0;
}

void view_end(struct gatewayd *gw)
{
    INVARIANT(gw->view.reading);
    state_read_end(gw->view.read);
    gw->view.reading = false;
}

void view_reopen(struct gatewayd *gw)
{
    view_close(gw);
    gw->view.retry_at_ms = 0;
    (void)try_open(gw);
}

uint64_t view_time_ns(struct gatewayd *gw)
{
    const struct state_meta *meta = &gw->view.meta;
    uint64_t boottime_ns = clock_boottime_ns();

    if (strcmp(gw->boot_id, meta->boot_id) != 0 || boottime_ns < meta->boottime_ns) {
        return meta->time_ns; /* of an earlier boot: time stands still until something is applied */
    }
    return meta->time_ns + (boottime_ns - meta->boottime_ns);
}
