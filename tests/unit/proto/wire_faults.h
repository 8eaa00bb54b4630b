/* wire_faults.h: everything that links send, through the hands of a test.
 *
 * wire_faults.c defines sendmsg, which nng calls for each batch of messages, one message an iovec: an executable it is
 * linked into sees each message of its links before the kernel does. Any thread calls it; all that is here is guarded
 * by one lock. For small messages only: it takes no part of one. */
#pragma once

#include "proto/link_frame.h"

enum wire_fault {
    WIRE_PASS,
    WIRE_DROP,
    WIRE_DOUBLE,
    WIRE_DELAY, /* behind some that follow from the same side */
    WIRE_HOLD,  /* until wire_faults_release */
};

/* Decides; called with the lock held, on any thread. from_listener: which side sends. */
typedef enum wire_fault (*wire_fault_fn)(
        void *user, bool from_listener, const struct link_frame *frame);

/* NULL: everything passes. Forgets what was delayed and held. */
void wire_faults_set(wire_fault_fn decide, void *user);
/* What is held goes behind the next message of its side, whatever pipe that takes. Returns how many there are. */
size_t wire_faults_release(void);
