/* conf_table.h: the table behind common/conf.h: one row a flag. For common/conf*.c and the tests, nobody else. */
#pragma once

#include "common/conf.h"

enum conf_type {
    CONF_TYPE_BOOL,      /* bool */
    CONF_TYPE_STRING,    /* char * */
    CONF_TYPE_PATH,      /* char *, made absolute unless empty */
    CONF_TYPE_U64,       /* uint64_t within min..max */
    CONF_TYPE_MS,        /* the same, in milliseconds */
    CONF_TYPE_CHOICE,    /* an enum: the position in choices ("a|b|c") */
    CONF_TYPE_PEER_URLS, /* struct conf_list of http and https URLs, sorted */
    CONF_TYPE_URLS,      /* the same, unix sockets too */
    CONF_TYPE_LIST,      /* struct conf_list of comma separated texts */
    CONF_TYPE_PEERS,     /* struct conf_peers */
    CONF_TYPE_ADDRESS,   /* char *: "1.2.3.4:80", the form of 0.4 */
    CONF_TYPE_IGNORED,   /* known once, warns; parses as a boolean; no field */
    CONF_TYPE_REJECTED,  /* known once, refused; no field */
};

struct conf_key {
    const char *flag;
    enum conf_type type;
    size_t offset;       /* into struct conf */
    const char *initial; /* the default as an operator would write it */
    const char *choices;
    uint64_t min;
    uint64_t max;
    const char *derived; /* how the page names a default that is computed; NULL: initial is it */
    const char *group;   /* heading in --help and in the page */
    unsigned who;        /* enum conf_who, or-ed: who acts on it */
    const char *help;
    bool no_environment;
};

const struct conf_key *conf_keys(size_t *ret_count);
/* The row's position, or -1. */
int conf_find_key(const char *flag, size_t flag_bytes);

enum {
    CONF_ENVIRONMENT_NAME_BYTES = 64
};
/* "listen-client-urls" -> "ETCD_LISTEN_CLIENT_URLS". */
void conf_environment_name(const struct conf_key *key, char ret_name[CONF_ENVIRONMENT_NAME_BYTES]);

/* Reads text into the row's field. Negative with the reason alone ("parse error (want ...)"). */
int conf_set_value(struct conf *conf, size_t row, const char *text, struct err *err);
void conf_list_split(struct conf_list *list, const char *text);
void conf_list_fini(struct conf_list *list);
void conf_peers_fini(struct conf_peers *peers);
void conf_list_copy(struct conf_list *to, const struct conf_list *from);

PRINTF_LIKE(4, 5)
void conf_note_add(
        struct conf *conf, enum log_level level, const char *package, const char *format, ...);

/* What belongs together is merged, what is left open is derived, and the whole is checked (conf_check.c). */
int conf_resolve(struct conf *conf, struct err *err);

/* What may be set, as texts of the page: "0..18446744073709551615", "`new`, `existing`". */
void conf_describe_range(const struct conf_key *key, char *ret_text, size_t text_bytes);
void conf_describe_who(const struct conf_key *key, char *ret_text, size_t text_bytes);
