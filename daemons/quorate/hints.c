#include "daemons/quorate/hints.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/url.h"

/* The URL as this host's curl would write it. */
static void print_curl(const char *text, const char *rest)
{
    struct url url;

    if (url_parse(text, URL_KIND_TCP_OR_UNIX, &url, NULL) < 0) {
        return;
    }
    if (url_is_unix(&url)) {
        (void)printf("curl --unix-socket %s http://localhost%s", url.path, rest);
        return;
    }
    if (url.host[0] == '\0') {
        (void)snprintf(url.host, sizeof url.host, "localhost");
    }
    bool is_v6 = strchr(url.host, ':') != NULL;
    (void)printf("curl %s://%s%s%s:%u%s", url_is_tls(&url) ? "https" : "http", is_v6 ? "[" : "",
            url.host, is_v6 ? "]" : "", url.port, rest);
}

/* The URL that most likely answers here: on this host, and the known port before the old one. */
static const char *best_url(const struct conf_list *urls)
{
    for (size_t i = 0; i < urls->count; i++) {
        struct url url;
        if (url_parse(urls->items[i], URL_KIND_TCP_OR_UNIX, &url, NULL) == 0 && url.port == 2379) {
            return urls->items[i];
        }
    }
    return urls->items[0];
}

void hints_print(const struct conf *conf)
{
    const char *url = best_url(&conf->listen_client_urls);

    if (getenv("QUORATE_HINTS") == NULL && isatty(STDERR_FILENO) != 1) {
        return;
    }
    (void)printf("\nQuorate serves clients at:");
    for (size_t i = 0; i < conf->listen_client_urls.count; i++) {
        (void)printf(" %s", conf->listen_client_urls.items[i]);
    }
    (void)printf("\n  try it:  ");
    print_curl(url, "/v2/keys/greeting -XPUT -d value=hello");
    (void)printf("\n           ");
    print_curl(url, "/v2/keys/greeting");
    (void)printf("\n  data:    %s\n  stop:    Ctrl-C, or kill %ld\n  wipe:    stop it, then rm -r "
                 "'%s'\n\n",
            conf->data_dir, (long)getpid(), conf->data_dir);
    (void)fflush(stdout);
}

void hints_warn_open(const struct conf *conf)
{
    for (size_t i = 0; i < conf->listen_client_urls.count; i++) {
        struct url url;
        const char *text = conf->listen_client_urls.items[i];
        if (url_parse(text, URL_KIND_TCP_OR_UNIX, &url, NULL) == 0 && !url_is_tls(&url) &&
                !url_is_loopback(&url)) {
            log_warning("quorate.listen.open",
                    "url=%s note=\"other hosts can reach it, and it has no TLS: they can read and "
                    "write everything\"",
                    text);
        }
    }
}
