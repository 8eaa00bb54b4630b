/* match.h: which events a watch on a path is told of (docs/api.md, "Watches"). Pure. */
#pragma once

#include "common/span.h"

struct event;

/* `path` is strictly below the directory `above`; both clean. */
bool watch_is_below(struct span path, struct span above);

/* What is left of `path` behind `above` has a segment that begins with '_'. path is above or below or equal: only
 * what is below can be hidden. */
bool watch_is_hidden(struct span path, struct span above);

/* A delete or expiry that took a whole directory: it is told below, too. */
bool watch_took_subtree(const struct event *event);

/* Never told to anybody: refreshes and bookkeeping. */
bool watch_is_untold(const struct event *event);

/* The rule for events of the past. (Live, an ancestor's deletion counts only where the watched node existed: see hub.h.) */
bool watch_matches_past(struct span key, bool recursive, const struct event *event);

/* A cheap look at an encoded event: false only where watch_matches_past would be, so that most of a history need not be
 * decoded to find a key in it. */
bool watch_may_match(struct span key, struct span encoded_event);
