/* virtual_wire.h: a loop and a wire in virtual time, in place of common/loop.c and proto/link_wire.c.
 *
 * An executable that links virtual_wire.c runs hubs whose minutes take no time and whose every frame passes the test's hands.
 * One listening hub and one dialing hub, connected as soon as both are open; a message takes a millisecond. What the loop
 * does late on a busy machine it does at once here, so a time that is asserted is the time that the links are made for.
 * One thread. */
#pragma once

#include "proto/link_frame.h"

struct loop;

/* Whether this frame is lost. */
typedef bool (*virtual_lose_fn)(void *user, bool from_listener, const struct link_frame *frame);

struct loop *virtual_loop(void);
/* Time begins anew, and so does the count of frames. NULL: nothing is lost. */
void virtual_begin(virtual_lose_fn lose, void *user);
/* What is due in the next so many milliseconds happens. */
void virtual_pass(uint64_t ms);
/* The loop was busy, or without a CPU, for so long; its timers come before what has arrived meanwhile. */
void virtual_block(uint64_t ms);
/* It waited for something to happen, and was not woken for so long: what has arrived meanwhile comes before its timers. */
void virtual_oversleep(uint64_t ms);
uint64_t virtual_now_ms(void);
/* So many bytes of the dialer's wait for its socket; fewer than before: it has taken some. */
void virtual_set_waiting(size_t bytes);
