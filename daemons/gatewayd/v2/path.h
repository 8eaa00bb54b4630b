/* path.h: request paths: decoded, cleaned and written again. Pure. */
#pragma once

#include "common/buf.h"

struct arena;

/* Decodes %XX (and '+' when `plus`). *ret_text is `raw` itself where nothing is escaped, else in the arena.
 * -EBADMSG: a bad escape, and *ret_bad is the offending run of at most three bytes. */
int path_decode(struct arena *arena, struct span raw, bool plus, struct span *ret_text,
        struct span *ret_bad);

/* True where the decoded path is one that is served: begins with a slash, no empty, "." or ".." segment, at most one slash at
 * its end. */
bool path_is_clean(struct span path);

/* The clean form: doubled slashes one, "." dropped, ".." resolved but never above the root, one trailing slash kept. */
struct span path_clean(struct arena *arena, struct span path);

/* Appends what a Location header says: the path escaped (upper-case hex, $ & + , / : ; = @ - _ . ~ raw), then the raw query
 * with its '?' unless there is none or it is empty. */
void path_append_location(struct buf *out, struct span clean, struct span query);

/* The body of a GET's redirect: an anchor with the location. */
void path_append_anchor(struct buf *out, struct span clean, struct span query);

/* /v2/keys/a/ -> /a, /v2/keys -> /. `path` is clean and begins with /v2/keys. Points into path. */
struct span path_key(struct span path);
