/* The server on epoll as nginx and its kin do it: edge-triggered, each connection registered once for everything and
 * never deregistered (close(2) does that), a small struct for each, one receive buffer for all.
 *
 * Fair: accept4 gives a non-blocking socket in one call, options are inherited from the listener, what has come already
 * is read right after the accept, a short read is taken for a drained socket unless EPOLLRDHUP was seen, and close(2)
 * after the client's FIN sends ours without a shutdown(2). It uses no trick that its community does not: it registers
 * every connection, and lets the FIN leave behind the answer. */
#define _GNU_SOURCE
#include "common.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 1024, REST_MS = 10 };

enum phase { READING, ANSWERING, LEAVING };

/* What the client has not taken of its echo. */
struct rest {
    size_t from, length;
    char bytes[];
};

struct connection {
    int fd;
    enum phase phase : 8;
    bool may_have_ended : 1; /* the FIN may be among what can be read, so a short read proves nothing */
    bool drained : 1;        /* all was read, until the next edge */
    uint64_t count;          /* of the request's bytes, then of the answer's */
    struct rest *rest;
};

enum progress { DONE, WAITS };

static struct options options;

/* Bytes read, 0 at the end; -1 with EAGAIN if there is nothing for now. */
static ssize_t receive(struct connection *connection) {
    if (connection->drained) {
        errno = EAGAIN;
        return -1;
    }
    ssize_t received = recv(connection->fd, buffer, sizeof buffer, 0);
    connection->drained = received > 0 && (size_t)received < sizeof buffer && !connection->may_have_ended;
    return received;
}

/* The edges that came while nobody read are gone, so whatever they said must be found out by reading. */
static void read_again(struct connection *connection) {
    connection->drained = false;
    connection->may_have_ended = true;
}

/* A connection that failed is done with as well. */
static enum progress progress_of(ssize_t result) {
    return result < 0 && errno == EAGAIN ? WAITS : DONE;
}

/* 0 if all is sent. */
static ssize_t send_answer(struct connection *connection) {
    while (connection->count < options.answer) {
        size_t length;
        const char *bytes = piece(connection->count, options.answer, &length);
        ssize_t sent = send(connection->fd, bytes, length, MSG_NOSIGNAL);
        if (sent < 0)
            return -1;
        connection->count += (uint64_t)sent;
    }
    return 0;
}

static enum progress finish_last(struct connection *connection) {
    if (connection->phase == READING) {
        ssize_t received;
        do {
            received = receive(connection);
        } while (received > 0);
        if (received < 0)
            return progress_of(received);
        connection->phase = ANSWERING;
    }
    return progress_of(send_answer(connection));
}

static enum progress finish_first(struct connection *connection) {
    ssize_t received;
    if (connection->phase == READING) {
        while (connection->count < options.request) {
            received = receive(connection);
            if (received <= 0)
                return progress_of(received);
            connection->count += (uint64_t)received;
        }
        connection->count = 0;
        connection->phase = ANSWERING;
    }
    if (connection->phase == ANSWERING) {
        if (send_answer(connection) < 0 || shutdown(connection->fd, SHUT_WR) < 0)
            return progress_of(-1);
        connection->phase = LEAVING;
        read_again(connection);
    }
    do {
        received = receive(connection);
    } while (received > 0);
    return progress_of(received);
}

static bool keep(struct connection *connection, const char *bytes, size_t length) {
    struct rest *rest = malloc(sizeof *rest + length);
    if (rest == NULL)
        return false;
    rest->from = 0;
    rest->length = length;
    memcpy(rest->bytes, bytes, length);
    connection->rest = rest;
    return true;
}

/* 0 if nothing is left of it. */
static ssize_t send_rest(struct connection *connection) {
    struct rest *rest = connection->rest;
    while (rest->from < rest->length) {
        ssize_t sent = send(connection->fd, rest->bytes + rest->from, rest->length - rest->from, MSG_NOSIGNAL);
        if (sent < 0)
            return -1;
        rest->from += (size_t)sent;
    }
    free(rest);
    connection->rest = NULL;
    read_again(connection);
    return 0;
}

static enum progress echo(struct connection *connection) {
    for (;;) {
        if (connection->rest != NULL && send_rest(connection) < 0)
            return progress_of(-1);
        ssize_t received = receive(connection);
        if (received <= 0)
            return progress_of(received);
        ssize_t sent = send(connection->fd, buffer, (size_t)received, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN)
            return DONE;
        sent = sent < 0 ? 0 : sent;
        if (sent < received && !keep(connection, buffer + sent, (size_t)(received - sent)))
            return DONE;
    }
}

static void serve(struct connection *connection) {
    enum progress progress = DONE;
    switch (options.mode) {
    case MODE_ANSWER:
        progress = finish_last(connection);
        break;
    case MODE_FIRST:
        progress = finish_first(connection);
        break;
    case MODE_ECHO:
        progress = echo(connection);
        break;
    }
    if (progress == DONE) {
        close(connection->fd);
        free(connection->rest);
        free(connection);
    }
}

static bool begin(int poll, int fd) {
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        return false;
    connection->fd = fd;
    connection->may_have_ended = true;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = connection};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event) != 0) {
        free(connection);
        return false;
    }
    serve(connection);
    return true;
}

/* Takes all that wait; whether the listener must be tried again although nothing will say so. */
static bool accept_all(int poll, int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == ECONNABORTED || errno == EINTR))
            continue;
        if (fd < 0)
            return errno != EAGAIN;
        if (!begin(poll, fd))
            close(fd);
    }
}

int main(int argc, char **argv) {
    options = parse(argc, argv);
    int listener = listen_anywhere(SOCK_NONBLOCK);
    int poll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    if (poll < 0 || epoll_ctl(poll, EPOLL_CTL_ADD, listener, &event) != 0)
        give_up("epoll");
    static struct epoll_event events[EVENTS];
    bool rests = false;
    for (;;) {
        int count = epoll_wait(poll, events, EVENTS, rests ? REST_MS : -1);
        if (count < 0 && errno != EINTR)
            give_up("epoll_wait");
        for (int at = 0; at < count; at++) {
            struct connection *connection = events[at].data.ptr;
            if (connection == NULL) {
                rests = true;
                continue;
            }
            connection->may_have_ended = (events[at].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
            connection->drained = false;
            serve(connection);
        }
        /* After the sockets, so that no place of memory is used twice within one batch of events. */
        if (rests)
            rests = accept_all(poll, listener);
    }
}
