/* loopback.h: addresses of this host alone. What fails is told by cmocka's asserts, so its header comes first. */
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

static inline struct sockaddr_in loopback_address(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = { htonl(INADDR_LOOPBACK) }
    };
}

/* One that was free a moment ago. */
static inline uint16_t loopback_free_port(void)
{
    struct sockaddr_in address = loopback_address(0);
    socklen_t bytes = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (const struct sockaddr *)(const void *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)(void *)&address, &bytes), 0);
    (void)close(fd);
    return ntohs(address.sin_port);
}

/* A connection, the caller's to close. */
static inline int loopback_dial(uint16_t port)
{
    struct sockaddr_in address = loopback_address(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(
            connect(fd, (const struct sockaddr *)(const void *)&address, sizeof address), 0);
    return fd;
}
