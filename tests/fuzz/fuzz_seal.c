/* fuzz_seal.c: what a stranger may say where sealed connections are spoken, and what somebody on the way may do to one.
 *
 * The first byte chooses: bytes to who listens, bytes to who dials, or a true connection of which the rest of the input
 * changes what is under way (two bytes: where, and what is added to it). Whoever has not the key must have nothing
 * delivered, and what is delivered of a changed connection is what was said, from its beginning on. */
#include "daemons/raftd/peer/seal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const struct seal_keys keys = { .keys = { { 1, 2, 3 } }, .count = 1 };

/* In pieces of the size that the second byte says. */
static void fuzz_stranger(bool listens, struct span input)
{
    struct seal *seal = seal_new(&keys, listens);
    struct buf plain = BUF_INIT;
    struct buf out = BUF_INIT;
    size_t piece_bytes = input.bytes == 0 ? 1 : (size_t)input.data[0] + 1;
    int result = seal_receive(seal, SPAN_NONE, &plain, &out, NULL);

    while (result == 0 && input.bytes > 0) {
        size_t now_bytes = MIN(input.bytes, piece_bytes);
        result = seal_receive(seal, span_of(input.data, now_bytes), &plain, &out, NULL);
        input = span_from(input, now_bytes);
    }
    INVARIANT_EQ(plain.bytes, 0);
    INVARIANT(!seal_is_ready(seal));
    buf_fini(&plain);
    buf_fini(&out);
    (void)seal_free(seal);
}

static void give(struct seal *to, struct buf *take_bytes, struct buf *plain, struct buf *out)
{
    INVARIANT_EQ(seal_receive(to, buf_span(take_bytes), plain, out, NULL), 0);
    buf_clear(take_bytes);
}

static void fuzz_middle(struct span input)
{
    static const char said[] = "one message that is said, and then another one, and a third";
    struct seal *dials = seal_new(&keys, false);
    struct seal *listens = seal_new(&keys, true);
    struct buf there = BUF_INIT;
    struct buf back = BUF_INIT;
    struct buf plain = BUF_INIT;

    give(dials, &back, &plain, &there);
    give(listens, &there, &plain, &back);
    give(dials, &back, &plain, &there);
    for (size_t at = 0; at + 1 < sizeof said; at += 20) {
        INVARIANT_EQ(seal_send(dials, span_of(said + at, MIN((size_t)20, sizeof said - 1 - at)),
                             &there, NULL),
                0);
    }
    while (input.bytes >= 2) {
        there.data[input.data[0] % there.bytes] += input.data[1];
        input = span_from(input, 2);
    }
    (void)seal_receive(listens, buf_span(&there), &plain, &back, NULL);
    INVARIANT(span_starts_with(span_str(said), buf_span(&plain)));
    buf_fini(&there);
    buf_fini(&back);
    buf_fini(&plain);
    (void)seal_free(dials);
    (void)seal_free(listens);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    if (bytes == 0) {
        return 0;
    }
    struct span input = span_of(data + 1, bytes - 1);
    if (data[0] % 3 == 2) {
        fuzz_middle(input);
    } else {
        fuzz_stranger(data[0] % 3 == 1, input);
    }
    return 0;
}
