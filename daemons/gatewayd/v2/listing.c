#include "daemons/gatewayd/v2/listing.h"

#include <errno.h>

#include "common/json.h"
#include "common/state/state.h"
#include "daemons/gatewayd/v2/render.h"

/* A directory that is being listed. */
struct frame {
    struct state_children children;
    size_t path_bytes; /* of listing->path when this directory is at hand */
    uint64_t modified_index;
    uint64_t created_index;
    bool any; /* a child has been written */
};

void listing_fini(struct listing *listing)
{
    buf_fini(&listing->path);
    free(listing->frames);
    *listing = (struct listing){ 0 };
}

static struct frame *push(struct listing *listing, struct state_read *read, size_t depth,
        const struct state_node *dir)
{
    if (depth == listing->frame_capacity) {
        listing->frame_capacity = MAX(depth * 2, (size_t)16);
        listing->frames =
                xrealloc(listing->frames, listing->frame_capacity * sizeof *listing->frames);
    }
    struct frame *frame = &listing->frames[depth];
    *frame = (struct frame){ .path_bytes = listing->path.bytes,
        .modified_index = dir->modified_index,
        .created_index = dir->created_index };
    state_children_begin(read, dir->dir_id, SPAN_NONE, &frame->children);
    return frame;
}

/* The next child that is listed, its key at hand. */
static bool next_child(struct listing *listing, struct frame *frame, struct state_node *ret_child)
{
    do {
        if (!state_children_next(&frame->children, ret_child)) {
            return false;
        }
    } while (ret_child->name.bytes > 0 && ret_child->name.data[0] == '_');
    listing->path.bytes = frame->path_bytes;
    buf_append_byte(&listing->path, '/');
    json_append_escaped(&listing->path, ret_child->name);
    return true;
}

static void close_frames(struct listing *listing, size_t depth)
{
    while (depth > 0) {
        state_children_end(&listing->frames[--depth].children);
    }
}

static int render_children(struct listing *listing, struct state_read *read,
        const struct listing_request *request, size_t start_bytes, struct buf *out,
        const struct state_node *top)
{
    size_t depth = 0;
    struct state_node child;

    (void)push(listing, read, depth++, top);
    while (depth > 0) {
        struct frame *frame = &listing->frames[depth - 1];
        if (!next_child(listing, frame, &child)) {
            if (frame->any) {
                buf_append_byte(out, ']');
            }
            render_node_tail(out, frame->modified_index, frame->created_index);
            state_children_end(&frame->children);
            depth--;
            continue;
        }
        if (request->bytes_max != 0 && out->bytes - start_bytes > request->bytes_max) {
            close_frames(listing, depth);
            out->bytes = start_bytes;
            return -EFBIG;
        }
        if (frame->any) {
            buf_append_byte(out, ',');
        } else {
            buf_append(out, ",\"nodes\":[", sizeof ",\"nodes\":[" - 1);
        }
        frame->any = true;
        render_node_head(out, buf_span(&listing->path), &child, request->now_ns);
        if (child.dir && request->recursive) {
            (void)push(listing, read, depth++, &child);
        } else {
            render_node_tail(out, child.modified_index, child.created_index);
        }
    }
    return 0;
}

int listing_render(struct listing *listing, struct state_read *read,
        const struct listing_request *request, struct buf *out, size_t *ret_bad_bytes)
{
    struct state_node node;
    size_t start_bytes = out->bytes;

    TRY(state_read_lookup(read, request->key, &node, ret_bad_bytes));
    buf_clear(&listing->path);
    if (request->key.bytes > 1) {
        json_append_escaped(&listing->path, request->key);
    }
    buf_append(out, "{\"action\":\"get\",\"node\":", sizeof "{\"action\":\"get\",\"node\":" - 1);
    render_node_head(out, buf_span(&listing->path), &node, request->now_ns);
    if (node.dir) {
        TRY(render_children(listing, read, request, start_bytes, out, &node));
    } else {
        render_node_tail(out, node.modified_index, node.created_index);
    }
    buf_append(out, "}\n", 2);
    return 0;
}
