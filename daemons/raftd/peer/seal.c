#include "daemons/raftd/peer/seal.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>

#include "proto/foreign.h"

enum {
    MAGIC_BYTES = sizeof FOREIGN_SEAL_MAGIC - 1,
    PUBLIC_BYTES = crypto_scalarmult_BYTES,
    PROOF_BYTES = 16,
    HELLO_BYTES = MAGIC_BYTES + PUBLIC_BYTES + PROOF_BYTES,
    STREAM_KEY_BYTES = crypto_secretstream_xchacha20poly1305_KEYBYTES,
    HEADER_BYTES = crypto_secretstream_xchacha20poly1305_HEADERBYTES,
    OVERHEAD_BYTES = crypto_secretstream_xchacha20poly1305_ABYTES,
    LENGTH_BYTES = 4,
    DIALS = 0, /* sides */
    LISTENS = 1,
};

enum step {
    STEP_BEGIN,  /* who dials has not said anything yet */
    STEP_HELLO,  /* awaits the other side's hello */
    STEP_HEADER, /* awaits the header of the other side's stream */
    STEP_FRAMES,
    STEP_BROKEN,
};

struct seal {
    struct seal_keys keys;
    size_t key; /* in use, once that is known */
    unsigned side;
    enum step step;
    bool can_send;
    uint8_t secret[crypto_scalarmult_SCALARBYTES];
    uint8_t publics[2][PUBLIC_BYTES];
    uint8_t stream_keys[2][STREAM_KEY_BYTES]; /* by who sends */
    crypto_secretstream_xchacha20poly1305_state push;
    crypto_secretstream_xchacha20poly1305_state pull;
    struct buf in; /* what came and is not a whole thing yet */
};

/* ---- Keys ---- */

int seal_keys_parse(struct span text, const char *path, struct seal_keys *ret_keys, struct err *err)
{
    struct seal_keys keys = { .count = 0 };
    const char *at = (const char *)text.data;
    const char *end = at + text.bytes;
    bool good = text.bytes > 0;

    while (good && at < end) {
        size_t bytes = 0;
        const char *next = at;
        good = keys.count < SEAL_KEYS_MAX &&
               sodium_hex2bin(keys.keys[keys.count], SEAL_KEY_BYTES, at, (size_t)(end - at), NULL,
                       &bytes, &next) == 0 &&
               bytes == SEAL_KEY_BYTES && (next == end || *next == '\r' || *next == '\n');
        keys.count += good;
        while (good && next < end && (*next == '\r' || *next == '\n')) {
            next++;
        }
        at = next;
    }
    if (good) {
        *ret_keys = keys;
    }
    sodium_memzero(&keys, sizeof keys);
    return good ? 0
                : err_set(err, -EINVAL,
                          "%s holds no cluster key; -cluster-key-file takes one or two lines of 64 "
                          "hex "
                          "digits, made once and copied to every member: openssl rand -hex 32 > "
                          "FILE",
                          path);
}

static void prove(
        const struct seal *seal, size_t key, unsigned side, uint8_t ret_proof[PROOF_BYTES])
{
    static const char *const labels[2] = { "quorate dials", "quorate listens" };
    crypto_generichash_state state;

    (void)crypto_generichash_init(&state, seal->keys.keys[key], SEAL_KEY_BYTES, PROOF_BYTES);
    (void)crypto_generichash_update(&state, (const uint8_t *)labels[side], strlen(labels[side]));
    (void)crypto_generichash_update(&state, seal->publics[DIALS], PUBLIC_BYTES);
    if (side == LISTENS) {
        (void)crypto_generichash_update(&state, seal->publics[LISTENS], PUBLIC_BYTES);
    }
    (void)crypto_generichash_final(&state, ret_proof, PROOF_BYTES);
}

/* False: the other side's public key is none. */
static bool make_stream_keys(struct seal *seal)
{
    static const char label[] = "quorate streams";
    uint8_t shared[crypto_scalarmult_BYTES];
    crypto_generichash_state state;

    if (crypto_scalarmult(shared, seal->secret, seal->publics[1 - seal->side]) != 0) {
        return false;
    }
    (void)crypto_generichash_init(
            &state, seal->keys.keys[seal->key], SEAL_KEY_BYTES, sizeof seal->stream_keys);
    (void)crypto_generichash_update(&state, (const uint8_t *)label, sizeof label - 1);
    (void)crypto_generichash_update(&state, shared, sizeof shared);
    (void)crypto_generichash_update(&state, seal->publics[0], sizeof seal->publics);
    (void)crypto_generichash_final(&state, seal->stream_keys[0], sizeof seal->stream_keys);
    sodium_memzero(shared, sizeof shared);
    sodium_memzero(seal->secret, sizeof seal->secret);
    return true;
}

/* ---- Handshake ---- */

static void say_hello(struct seal *seal, struct buf *out)
{
    uint8_t proof[PROOF_BYTES];

    prove(seal, seal->key, seal->side, proof);
    buf_append(out, FOREIGN_SEAL_MAGIC, MAGIC_BYTES);
    buf_append(out, seal->publics[seal->side], PUBLIC_BYTES);
    buf_append(out, proof, sizeof proof);
}

static void say_header(struct seal *seal, struct buf *out)
{
    uint8_t header[HEADER_BYTES];

    (void)crypto_secretstream_xchacha20poly1305_init_push(
            &seal->push, header, seal->stream_keys[seal->side]);
    buf_append(out, header, sizeof header);
}

static int refuse_stranger(struct span first, struct err *err)
{
    const char *text = foreign_text(first);

    return err_set(err, -EPROTO, "%s",
            text != NULL
                    ? text
                    : "the other side does not seal its connections; give all members the same "
                      "-cluster-key-file");
}

/* The key that the proof was made with. */
static int find_key(struct seal *seal, const uint8_t *given, struct err *err)
{
    size_t first = seal->side == DIALS ? seal->key : 0;
    size_t count = seal->side == DIALS ? 1 : seal->keys.count;
    uint8_t proof[PROOF_BYTES];

    for (size_t i = first; i < first + count; i++) {
        prove(seal, i, 1 - seal->side, proof);
        if (sodium_memcmp(proof, given, sizeof proof) == 0) {
            seal->key = i;
            return 0;
        }
    }
    return err_set(err, -EPROTO,
            "the other side seals with another cluster key; give all members the same "
            "-cluster-key-file");
}

/* Takes the hello at the front of `in`: 1; 0: it is not whole yet. */
static int take_hello(struct seal *seal, struct buf *out, struct err *err)
{
    size_t known = MIN(seal->in.bytes, (size_t)MAGIC_BYTES);

    if (memcmp(seal->in.data, FOREIGN_SEAL_MAGIC, known) != 0) {
        /* Whatever it is, it is no seal: four bytes may tell more. */
        return known < MAGIC_BYTES ? 0 : refuse_stranger(buf_span(&seal->in), err);
    }
    if (seal->in.bytes < HELLO_BYTES) {
        return 0;
    }
    memcpy(seal->publics[1 - seal->side], seal->in.data + MAGIC_BYTES, PUBLIC_BYTES);
    TRY(find_key(seal, seal->in.data + MAGIC_BYTES + PUBLIC_BYTES, err));
    if (!make_stream_keys(seal)) {
        return err_set(err, -EPROTO,
                "a sealed handshake without a key of its own; check what speaks there");
    }
    if (seal->side == LISTENS) {
        say_hello(seal, out);
    }
    say_header(seal, out);
    seal->can_send = seal->side == DIALS;
    buf_drop_front(&seal->in, HELLO_BYTES);
    seal->step = STEP_HEADER;
    return 1;
}

static int take_header(struct seal *seal)
{
    if (seal->in.bytes < HEADER_BYTES) {
        return 0;
    }
    (void)crypto_secretstream_xchacha20poly1305_init_pull(
            &seal->pull, seal->in.data, seal->stream_keys[1 - seal->side]);
    sodium_memzero(seal->stream_keys, sizeof seal->stream_keys);
    buf_drop_front(&seal->in, HEADER_BYTES);
    seal->can_send = true;
    seal->step = STEP_FRAMES;
    return 1;
}

/* ---- Frames ---- */

static uint32_t read_length(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Opens the whole frames in `in`. */
static int take_frames(struct seal *seal, struct buf *plain, struct err *err)
{
    struct span left = buf_span(&seal->in);
    unsigned char tag;

    while (left.bytes >= LENGTH_BYTES) {
        size_t bytes = read_length(left.data);
        if (bytes <= OVERHEAD_BYTES || bytes > SEAL_PLAIN_BYTES_MAX + OVERHEAD_BYTES) {
            return err_set(
                    err, -EPROTO, "a sealed frame of %zu bytes; check what speaks there", bytes);
        }
        if (left.bytes < LENGTH_BYTES + bytes) {
            break;
        }
        uint8_t *room = buf_reserve(plain, bytes - OVERHEAD_BYTES);
        if (crypto_secretstream_xchacha20poly1305_pull(
                    &seal->pull, room, NULL, &tag, left.data + LENGTH_BYTES, bytes, NULL, 0) != 0) {
            return err_set(err, -EPROTO,
                    "a sealed frame does not open: it was changed, left out, doubled or moved on "
                    "its way; "
                    "check what is between the hosts");
        }
        plain->bytes += bytes - OVERHEAD_BYTES;
        left = span_from(left, LENGTH_BYTES + bytes);
    }
    buf_drop_front(&seal->in, seal->in.bytes - left.bytes);
    return 0;
}

static int take(struct seal *seal, struct buf *plain, struct buf *out, struct err *err)
{
    int more = 1;

    while (more > 0 && seal->step != STEP_FRAMES) {
        more = seal->step == STEP_HELLO ? take_hello(seal, out, err) : take_header(seal);
    }
    return more > 0 ? take_frames(seal, plain, err) : more;
}

int seal_receive(
        struct seal *seal, struct span bytes, struct buf *plain, struct buf *out, struct err *err)
{
    if (seal->step == STEP_BEGIN) {
        say_hello(seal, out);
        seal->step = STEP_HELLO;
    }
    if (seal->step == STEP_BROKEN || bytes.bytes == 0) {
        return seal->step == STEP_BROKEN ? -EPROTO : 0;
    }
    buf_append_span(&seal->in, bytes);
    int result = take(seal, plain, out, err);
    if (result < 0) {
        seal->step = STEP_BROKEN;
        seal->can_send = false;
    }
    return MIN(result, 0);
}

bool seal_is_ready(const struct seal *seal)
{
    return seal->can_send;
}

int seal_send(struct seal *seal, struct span plain, struct buf *out, struct err *err)
{
    (void)err;
    INVARIANT(seal->can_send);
    while (plain.bytes > 0) {
        size_t bytes = MIN(plain.bytes, (size_t)SEAL_PLAIN_BYTES_MAX);
        size_t sealed = bytes + OVERHEAD_BYTES;
        uint8_t *room = buf_reserve(out, LENGTH_BYTES + sealed);
        for (unsigned i = 0; i < LENGTH_BYTES; i++) {
            room[i] = (uint8_t)(sealed >> (8 * (LENGTH_BYTES - 1 - i)));
        }
        (void)crypto_secretstream_xchacha20poly1305_push(
                &seal->push, room + LENGTH_BYTES, NULL, plain.data, bytes, NULL, 0, 0);
        out->bytes += LENGTH_BYTES + sealed;
        plain = span_from(plain, bytes);
    }
    return 0;
}

/* ---- Life ---- */

struct seal *seal_new(const struct seal_keys *keys, bool listens)
{
    struct seal *seal = xcalloc(1, sizeof *seal);

    INVARIANT_LT(0, keys->count);
    seal->keys = *keys;
    seal->side = listens ? LISTENS : DIALS;
    seal->step = listens ? STEP_HELLO : STEP_BEGIN;
    randombytes_buf(seal->secret, sizeof seal->secret);
    (void)crypto_scalarmult_base(seal->publics[seal->side], seal->secret);
    return seal;
}

struct seal *seal_free(struct seal *seal)
{
    if (seal != NULL) {
        buf_fini(&seal->in);
        sodium_memzero(seal, sizeof *seal);
        free(seal);
    }
    return NULL;
}
