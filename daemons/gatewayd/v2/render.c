#include "daemons/gatewayd/v2/render.h"

#include "common/json.h"
#include "common/state/state.h"
#include "proto/outcome.h"

/* What render_fixed may write without asking for room again. */
enum {
    FIXED_BYTES_MAX = 256,
    NS_PER_S = 1000000000
};

static const char *const action_names[EVENT_ACTION_COUNT] = {
    [EVENT_SET] = "set",
    [EVENT_CREATE] = "create",
    [EVENT_UPDATE] = "update",
    [EVENT_COMPARE_AND_SWAP] = "compareAndSwap",
    [EVENT_DELETE] = "delete",
    [EVENT_COMPARE_AND_DELETE] = "compareAndDelete",
    [EVENT_EXPIRE] = "expire",
};

/* Copies a literal into room that the caller has reserved. */
#define PUT(out, text) put_reserved(out, "" text, sizeof(text) - 1)

static inline void put_reserved(struct buf *out, const char *text, size_t bytes)
{
    memcpy(out->data + out->bytes, text, bytes);
    out->bytes += bytes;
}

static void put_u64(struct buf *out, uint64_t value)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    put_reserved(out, digits + at, sizeof digits - at);
}

static void put_digits(struct buf *out, unsigned value, unsigned count)
{
    for (unsigned i = count; i > 0; i--) {
        out->data[out->bytes + i - 1] = (uint8_t)('0' + value % 10);
        value /= 10;
    }
    out->bytes += count;
}

int64_t render_ttl_s(uint64_t deadline_ns, uint64_t now_ns)
{
    int64_t left_ns = (int64_t)(deadline_ns - now_ns);
    int64_t left_s = left_ns / NS_PER_S;
    return left_ns % NS_PER_S > 0 ? left_s + 1 : left_s;
}

/* Days since 1970-01-01 to a date of the Gregorian calendar, counted in eras of 400 years that begin in March. */
static void put_date(struct buf *out, uint64_t days)
{
    uint64_t shifted = days + 719468; /* days since 0000-03-01 */
    uint64_t era = shifted / 146097;
    unsigned day_of_era = (unsigned)(shifted % 146097);
    unsigned year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    unsigned day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned month_from_march = (5 * day_of_year + 2) / 153;
    unsigned day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    unsigned month = month_from_march < 10 ? month_from_march + 3 : month_from_march - 9;

    put_digits(out, (unsigned)(era * 400) + year_of_era + (month <= 2), 4);
    PUT(out, "-");
    put_digits(out, month, 2);
    PUT(out, "-");
    put_digits(out, day, 2);
}

static void put_time(struct buf *out, uint64_t time_ns)
{
    uint64_t seconds = time_ns / NS_PER_S;
    unsigned fraction = (unsigned)(time_ns % NS_PER_S);
    unsigned second_of_day = (unsigned)(seconds % 86400);

    put_date(out, seconds / 86400);
    PUT(out, "T");
    put_digits(out, second_of_day / 3600, 2);
    PUT(out, ":");
    put_digits(out, second_of_day / 60 % 60, 2);
    PUT(out, ":");
    put_digits(out, second_of_day % 60, 2);
    if (fraction > 0) {
        PUT(out, ".");
        put_digits(out, fraction, 9);
        while (out->data[out->bytes - 1] == '0') {
            out->bytes--;
        }
    }
    PUT(out, "Z");
}

void render_time(struct buf *out, uint64_t time_ns)
{
    (void)buf_reserve(out, FIXED_BYTES_MAX);
    put_time(out, time_ns);
}

static void put_deadline(struct buf *out, uint64_t deadline_ns, uint64_t now_ns)
{
    int64_t ttl_s = render_ttl_s(deadline_ns, now_ns);

    PUT(out, ",\"expiration\":\"");
    put_time(out, deadline_ns);
    PUT(out, "\"");
    if (ttl_s != 0) {
        PUT(out, ",\"ttl\":");
        if (ttl_s < 0) {
            PUT(out, "-");
        }
        put_u64(out, ttl_s < 0 ? 0 - (uint64_t)ttl_s : (uint64_t)ttl_s);
    }
}

/* Everything of a node behind its key and value. */
static void render_node_rest(struct buf *out, bool dir, uint64_t deadline_ns, uint64_t now_ns)
{
    (void)buf_reserve(out, FIXED_BYTES_MAX);
    if (dir) {
        PUT(out, ",\"dir\":true");
    }
    if (deadline_ns != 0) {
        put_deadline(out, deadline_ns, now_ns);
    }
}

void render_node_tail(struct buf *out, uint64_t modified_index, uint64_t created_index)
{
    (void)buf_reserve(out, FIXED_BYTES_MAX);
    if (modified_index != 0) {
        PUT(out, ",\"modifiedIndex\":");
        put_u64(out, modified_index);
    }
    if (created_index != 0) {
        PUT(out, ",\"createdIndex\":");
        put_u64(out, created_index);
    }
    PUT(out, "}");
}

void render_node_head(
        struct buf *out, struct span escaped_key, const struct state_node *node, uint64_t now_ns)
{
    (void)buf_reserve(out, escaped_key.bytes + FIXED_BYTES_MAX);
    PUT(out, "{");
    if (escaped_key.bytes == 0) {
        PUT(out, "\"dir\":true"); /* the root has neither key nor deadline */
        return;
    }
    PUT(out, "\"key\":\"");
    put_reserved(out, (const char *)escaped_key.data, escaped_key.bytes);
    PUT(out, "\"");
    if (!node->dir) {
        PUT(out, ",\"value\":\"");
        json_append_escaped(out, node->value);
        buf_append_byte(out, '"');
    }
    render_node_rest(out, node->dir, node->deadline_ns, now_ns);
}

struct event_node {
    bool dir;
    bool has_value;
    struct span value;
    uint64_t deadline_ns;
    uint64_t modified_index;
    uint64_t created_index;
};

static void render_event_node(
        struct buf *out, struct span key, const struct event_node *node, uint64_t now_ns)
{
    (void)buf_reserve(out, FIXED_BYTES_MAX);
    PUT(out, "{\"key\":\"");
    json_append_escaped(out, key);
    buf_append_byte(out, '"');
    if (node->has_value) {
        buf_append(out, ",\"value\":\"", sizeof ",\"value\":\"" - 1);
        json_append_escaped(out, node->value);
        buf_append_byte(out, '"');
    }
    render_node_rest(out, node->dir, node->deadline_ns, now_ns);
    render_node_tail(out, node->modified_index, node->created_index);
}

static const char *action_name(const struct event *event)
{
    const char *name = event->action < EVENT_ACTION_COUNT ? action_names[event->action] : NULL;
    return name == NULL ? "" : name; /* an action of a later release */
}

void render_event(struct buf *out, const struct event *event)
{
    struct event_node node = { .dir = event->dir,
        .has_value = HAS(event, event_tag_value),
        .value = event->value,
        .deadline_ns = event->deadline_ns,
        .modified_index = event->etcd_index,
        .created_index = event->created_index };

    (void)buf_reserve(out, FIXED_BYTES_MAX + event->path.bytes + event->value.bytes);
    PUT(out, "{\"action\":\"");
    const char *name = action_name(event);
    put_reserved(out, name, strlen(name));
    PUT(out, "\",\"node\":");
    render_event_node(out, event->path, &node, event->time_ns);
    if (event->prev) {
        struct event_node prev = { .dir = event->prev_dir,
            .has_value = !event->prev_dir,
            .value = event->prev_value,
            .deadline_ns = event->prev_deadline_ns,
            .modified_index = event->prev_modified_index,
            .created_index = event->prev_created_index };
        (void)buf_reserve(out, FIXED_BYTES_MAX);
        PUT(out, ",\"prevNode\":");
        render_event_node(out, event->path, &prev, event->time_ns);
    }
    buf_append(out, "}\n", 2);
}

void render_action(struct buf *out, const struct event *event)
{
    (void)buf_reserve(out, FIXED_BYTES_MAX);
    PUT(out, "{\"action\":\"");
    const char *name = action_name(event);
    put_reserved(out, name, strlen(name));
    PUT(out, "\"}\n");
}

bool render_can_omit_value(const struct event *event)
{
    return event->action == EVENT_SET || event->action == EVENT_CREATE ||
           event->action == EVENT_UPDATE || event->action == EVENT_COMPARE_AND_SWAP;
}

unsigned render_event_status(const struct event *event)
{
    bool created = event->action == EVENT_CREATE || (event->action == EVENT_SET && !event->prev);
    return created ? 201 : 200;
}
