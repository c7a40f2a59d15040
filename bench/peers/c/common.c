#define _GNU_SOURCE
#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

/* What `finale serve answer` repeats. */
static const char LINE[] = "finale: 64 bytes that say nothing but that the answer is whole.\n";
enum { LINE_BYTES = sizeof LINE - 1 };
_Static_assert(LINE_BYTES == 64, "a line has 64 bytes");

char buffer[PIECE_BYTES];
/* One line longer than a piece, so that a whole piece can be had from the middle of a line on. */
static char lines[PIECE_BYTES + LINE_BYTES];

void give_up(const char *what) {
    perror(what);
    exit(1);
}

static bool number(const char *text, uint64_t *value) {
    char *end;
    errno = 0;
    *value = strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && errno == 0;
}

struct options parse(int argc, char **argv) {
    struct options options = {0};
    for (size_t at = 0; at < sizeof lines; at += LINE_BYTES)
        memcpy(lines + at, LINE, LINE_BYTES);
    if (argc == 3 && strcmp(argv[1], "answer") == 0 && number(argv[2], &options.answer)) {
        options.mode = MODE_ANSWER;
    } else if (argc == 4 && strcmp(argv[1], "first") == 0 && number(argv[2], &options.request) &&
               number(argv[3], &options.answer)) {
        options.mode = MODE_FIRST;
    } else if (argc == 2 && strcmp(argv[1], "echo") == 0) {
        options.mode = MODE_ECHO;
    } else {
        fprintf(stderr, "usage: answer BYTES | first REQUEST ANSWER | echo\n");
        exit(2);
    }
    return options;
}

const char *piece(uint64_t sent, uint64_t total, size_t *length) {
    uint64_t left = total - sent;
    *length = left < PIECE_BYTES ? (size_t)left : PIECE_BYTES;
    return lines + sent % LINE_BYTES;
}

void raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        give_up("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        give_up("setrlimit");
}

int listen_anywhere(int flags) {
    const int on = 1;
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    raise_descriptor_limit();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (listener < 0)
        give_up("socket");
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0)
        give_up("setsockopt");
    if (bind(listener, (struct sockaddr *)&addr, sizeof addr) != 0)
        give_up("bind");
    if (listen(listener, BACKLOG) != 0)
        give_up("listen");
    announce(listener);
    return listener;
}

void announce(int listener) {
    struct sockaddr_in addr = {0};
    socklen_t length = sizeof addr;
    if (getsockname(listener, (struct sockaddr *)&addr, &length) != 0)
        give_up("getsockname");
    printf("listening on 127.0.0.1:%d\n", ntohs(addr.sin_port));
    fflush(stdout);
}
