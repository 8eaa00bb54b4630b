/* children.h: what the read transaction must know of the directory iterators. For the files of this folder only. */
#pragma once

struct state_read;

/* Closes the cursors that are kept for reuse; before the transaction ends. */
void children_free_idle(struct state_read *read);
