/* wire_faults.h: everything a link sends, through the hands of a test.
 *
 * wire_faults.c defines nng_send_aio, the one function that links send through, so an executable it is linked into
 * sees each message before nng does. Any thread calls it; all that is here is guarded by one lock. */
#pragma once

#include "proto/link_frame.h"

enum wire_fault {
    WIRE_PASS,
    WIRE_DROP,
    WIRE_DOUBLE,
    WIRE_DELAY, /* behind some that follow */
    WIRE_HOLD,  /* until wire_faults_release */
};

/* Decides; called with the lock held, on any thread. */
typedef enum wire_fault (*wire_fault_fn)(void *user, const struct link_frame *frame);

/* NULL: everything passes. Forgets what was delayed and held. */
void wire_faults_set(wire_fault_fn decide, void *user);
/* Sends all that is held, over whatever pipe there is now. Returns how many there were. */
size_t wire_faults_release(void);
