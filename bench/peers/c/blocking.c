/* The server without any events: accept, read, write, close, one connection after the other.
 *
 * Not a server to put before the world (a silent client stops it), but the floor that event loops are measured
 * against: it makes only the calls that move bytes, and its client has always sent everything before it is accepted.
 * Kept-open connections need more than one at a time, so `echo` has a thread for each, as blocking servers do.
 *
 * Fair: options are inherited from the listener, and close(2) after the client's FIN sends ours without a shutdown(2). */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static bool send_all(int fd, const char *bytes, size_t length) {
    while (length > 0) {
        ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
        if (sent < 0)
            return false;
        bytes += sent;
        length -= (size_t)sent;
    }
    return true;
}

static bool send_answer(int fd, uint64_t total) {
    uint64_t sent = 0;
    while (sent < total) {
        size_t length;
        const char *bytes = piece(sent, total, &length);
        if (!send_all(fd, bytes, length))
            return false;
        sent += length;
    }
    return true;
}

/* Whether the client ended, and was not reset. */
static bool read_to_end(int fd) {
    ssize_t received;
    do {
        received = recv(fd, buffer, sizeof buffer, 0);
    } while (received > 0);
    return received == 0;
}

static void finish_last(int fd, const struct options *options) {
    if (read_to_end(fd))
        send_answer(fd, options->answer);
    close(fd);
}

static void finish_first(int fd, const struct options *options) {
    bool going = true;
    for (uint64_t count = 0; going && count < options->request;) {
        ssize_t received = recv(fd, buffer, sizeof buffer, 0);
        going = received > 0;
        count += going ? (uint64_t)received : 0;
    }
    if (going && send_answer(fd, options->answer) && shutdown(fd, SHUT_WR) == 0)
        read_to_end(fd);
    close(fd);
}

static void *echo(void *argument) {
    int fd = (int)(intptr_t)argument;
    char own[16 << 10];
    ssize_t received;
    do {
        received = recv(fd, own, sizeof own, 0);
    } while (received > 0 && send_all(fd, own, (size_t)received));
    close(fd);
    return NULL;
}

static void begin_echo(int fd, const pthread_attr_t *small) {
    pthread_t thread;
    if (pthread_create(&thread, small, echo, (void *)(intptr_t)fd) != 0)
        close(fd);
}

int main(int argc, char **argv) {
    struct options options = parse(argc, argv);
    int listener = listen_anywhere(0);
    const struct timespec rest = {.tv_nsec = 10 * 1000 * 1000};
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setdetachstate(&small, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&small, 64 << 10);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            /* Out of descriptors: wait until a thread has ended. Other errors are the client's. */
            if (errno == EMFILE || errno == ENFILE)
                nanosleep(&rest, NULL);
            continue;
        }
        switch (options.mode) {
        case MODE_ANSWER:
            finish_last(fd, &options);
            break;
        case MODE_FIRST:
            finish_first(fd, &options);
            break;
        case MODE_ECHO:
            begin_echo(fd, &small);
            break;
        }
    }
}
