/* render.h: events and nodes as JSON, byte for byte (docs/api.md, "Answers"). Pure. */
#pragma once

#include "common/buf.h"

struct event;
struct state_node;

/* {"action":A,"node":N[,"prevNode":P]} and a newline. Depends on the event alone, so one text serves all watchers. */
void render_event(struct buf *out, const struct event *event);

/* {"action":A} and a newline, for noValueOnSuccess. */
void render_action(struct buf *out, const struct event *event);

/* True where noValueOnSuccess cuts the answer down to its action. */
bool render_can_omit_value(const struct event *event);

/* 201 for what was created, 200 for the rest. */
unsigned render_event_status(const struct event *event);

/* What stands before the children of a node: {"key":K,"value":V | "dir":true,"expiration":E,"ttl":T. The key is given
 * already escaped; empty: the root's, left out. */
void render_node_head(
        struct buf *out, struct span escaped_key, const struct state_node *node, uint64_t now_ns);
/* ...and behind: "modifiedIndex":M,"createdIndex":C} */
void render_node_tail(struct buf *out, uint64_t modified_index, uint64_t created_index);

/* 2026-11-22T06:42:16.50922209Z: up to nine digits of fraction, trailing zeros dropped. */
void render_time(struct buf *out, uint64_t time_ns);

/* Seconds left, rounded up while positive and towards zero behind the deadline. */
int64_t render_ttl_s(uint64_t deadline_ns, uint64_t now_ns);
