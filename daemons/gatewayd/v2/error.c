#include "daemons/gatewayd/v2/error.h"

#include "common/json.h"

struct row {
    unsigned code;
    unsigned status;
    const char *message;
};

/* Those that this server gives or may meet in a log; whatever is not listed is a 400. */
static const struct row rows[] = {
    { 100, 404, "Key not found" },
    { 101, 412, "Compare failed" },
    { 102, 403, "Not a file" },
    { 103, 400, "Reached the max number of peers in the cluster" },
    { 104, 400, "Not a directory" },
    { 105, 412, "Key already exists" },
    { 106, 400, "The prefix of given key is a keyword in etcd" },
    { 107, 400, "Root is read only" },
    { 108, 403, "Directory not empty" },
    { 109, 400, "Peer address has existed" },
    { 110, 401, "The request requires user authentication" },
    { 200, 400, "Value is Required in POST form" },
    { 201, 400, "PrevValue is Required in POST form" },
    { 202, 400, "The given TTL in POST form is not a number" },
    { 203, 400, "The given index in POST form is not a number" },
    { 204, 400, "Value or TTL is required in POST form" },
    { 205, 400, "The given timeout in POST form is not a number" },
    { 206, 400, "Name is required in POST form" },
    { 207, 400, "Index or value is required" },
    { 208, 400, "Index and value cannot both be specified" },
    { 209, 400, "Invalid field" },
    { 210, 400, "Invalid POST form" },
    { 211, 400, "Value provided on refresh" },
    { 212, 400, "A TTL must be provided on refresh" },
    { 300, 500, "Raft Internal Error" },
    { 301, 500, "During Leader Election" },
    { 400, 400, "watcher is cleared due to etcd recovery" },
    { 401, 400, "The event in requested index is outdated and cleared" },
    { 402, 400, "Standby Internal Error" },
    { 403, 400, "Invalid active size" },
    { 404, 400, "Standby remove delay" },
    { 500, 400, "Client Internal Error" },
};

static const struct row *find_row(unsigned code)
{
    for (size_t i = 0; i < ARRAY_COUNT(rows); i++) {
        if (rows[i].code == code) {
            return &rows[i];
        }
    }
    return NULL;
}

unsigned api_error_status(unsigned code)
{
    const struct row *row = find_row(code);
    return row == NULL ? 400 : row->status;
}

const char *api_error_message(unsigned code)
{
    const struct row *row = find_row(code);
    return row == NULL ? "" : row->message;
}

void api_error_append(struct buf *out, const struct api_error *error)
{
    buf_append_str(out, "{\"errorCode\":");
    buf_append_u64_decimal(out, error->code);
    buf_append_str(out, ",\"message\":");
    json_append_string(out, span_str(api_error_message(error->code)));
    if (error->cause.bytes > 0) {
        buf_append_str(out, ",\"cause\":");
        json_append_string(out, error->cause);
    }
    buf_append_str(out, ",\"index\":");
    buf_append_u64_decimal(out, error->index);
    buf_append_str(out, "}\n");
}
