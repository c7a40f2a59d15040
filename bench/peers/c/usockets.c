/* The server on uSockets, with its callbacks as its own examples use them: on_data, on_end, on_writable.
 *
 * Fair: us_socket_write sends at once, all reads share the loop's buffer, and us_socket_close after the client's FIN
 * sends ours without a us_socket_shutdown. Half-close is expressible: after on_end the socket lives on until it
 * is closed, and after us_socket_shutdown the library closes by itself when the client's FIN comes. What its API does not
 * offer, and what this server does about it: the backlog is fixed at 512, so listen(2) is called again; a socket can't be
 * paused, so `echo` changes what its poll waits for; a write that is stuck after the client's FIN would have the loop
 * spin on that FIN, so there the poll is changed too. The library sets O_NONBLOCK (two fcntl, although accept4 has done
 * it) and TCP_NODELAY on each accepted socket, and deregisters it before the close; that can't be chosen. */
#define _GNU_SOURCE
#include "common.h"

#include <libusockets.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

struct rest {
    size_t from, length;
    char bytes[];
};

struct connection {
    bool answering;
    bool ended;
    uint64_t count;    /* of the request's bytes, then of the answer's */
    struct rest *rest; /* what the client has not taken of its echo */
};

static struct options options;

static struct connection *connection_of(struct us_socket_t *socket) {
    return us_socket_ext(0, socket);
}

/* A socket begins with its poll, as the library's own code takes for granted. */
static void poll_for(struct us_socket_t *socket, int events) {
    us_poll_change((struct us_poll_t *)socket, us_socket_context_loop(0, us_socket_context(0, socket)), events);
}

static struct us_socket_t *finish(struct us_socket_t *socket) {
    if (connection_of(socket)->ended)
        return us_socket_close(0, socket, 0, NULL);
    us_socket_shutdown(0, socket);
    return socket;
}

/* Sends until the kernel takes no more; the library then asks for on_writable by itself. */
static struct us_socket_t *send_answer(struct us_socket_t *socket) {
    struct connection *connection = connection_of(socket);
    while (connection->count < options.answer) {
        size_t length;
        const char *bytes = piece(connection->count, options.answer, &length);
        int sent = us_socket_write(0, socket, bytes, (int)length, 0);
        connection->count += (uint64_t)sent;
        if ((size_t)sent < length) {
            /* It asks to read as well, and a FIN can be read for ever: the loop would spin until there is room. */
            if (connection->ended)
                poll_for(socket, EPOLLOUT);
            return socket;
        }
    }
    return finish(socket);
}

static struct us_socket_t *begin_answer(struct us_socket_t *socket) {
    connection_of(socket)->answering = true;
    connection_of(socket)->count = 0;
    return send_answer(socket);
}

/* What the client does not take is copied, and nothing more is read until it has taken it. */
static struct us_socket_t *echo(struct us_socket_t *socket, const char *data, size_t length) {
    size_t sent = (size_t)us_socket_write(0, socket, data, (int)length, 0);
    if (sent == length)
        return socket;
    struct rest *rest = malloc(sizeof *rest + length - sent);
    if (rest == NULL)
        return us_socket_close(0, socket, 0, NULL);
    rest->from = 0;
    rest->length = length - sent;
    memcpy(rest->bytes, data + sent, rest->length);
    connection_of(socket)->rest = rest;
    poll_for(socket, EPOLLOUT);
    return socket;
}

static void send_rest(struct us_socket_t *socket) {
    struct connection *connection = connection_of(socket);
    struct rest *rest = connection->rest;
    rest->from += (size_t)us_socket_write(0, socket, rest->bytes + rest->from, (int)(rest->length - rest->from), 0);
    if (rest->from < rest->length) {
        poll_for(socket, EPOLLOUT);
        return;
    }
    free(rest);
    connection->rest = NULL;
    /* The library leaves off waiting for room to write when this callback is over. */
    poll_for(socket, EPOLLIN | EPOLLOUT);
}

static struct us_socket_t *on_open(struct us_socket_t *socket, int is_client, char *ip, int ip_length) {
    (void)is_client;
    (void)ip;
    (void)ip_length;
    *connection_of(socket) = (struct connection){0};
    if (options.mode == MODE_FIRST && options.request == 0)
        return begin_answer(socket);
    return socket;
}

static struct us_socket_t *on_data(struct us_socket_t *socket, char *data, int length) {
    struct connection *connection = connection_of(socket);
    switch (options.mode) {
    case MODE_ANSWER:
        break;
    case MODE_FIRST:
        connection->count += connection->answering ? 0 : (uint64_t)length;
        if (!connection->answering && connection->count >= options.request)
            return begin_answer(socket);
        break;
    case MODE_ECHO:
        return echo(socket, data, (size_t)length);
    }
    return socket;
}

static struct us_socket_t *on_end(struct us_socket_t *socket) {
    struct connection *connection = connection_of(socket);
    connection->ended = true;
    switch (options.mode) {
    case MODE_ANSWER:
        return connection->answering ? send_answer(socket) : begin_answer(socket);
    case MODE_FIRST:
        return connection->answering ? send_answer(socket) : us_socket_close(0, socket, 0, NULL);
    case MODE_ECHO:
        return us_socket_close(0, socket, 0, NULL);
    }
    return socket;
}

static struct us_socket_t *on_writable(struct us_socket_t *socket) {
    if (connection_of(socket)->rest != NULL)
        send_rest(socket);
    else if (connection_of(socket)->answering && !us_socket_is_shut_down(0, socket))
        return send_answer(socket);
    return socket;
}

static struct us_socket_t *on_close(struct us_socket_t *socket, int code, void *reason) {
    (void)code;
    (void)reason;
    free(connection_of(socket)->rest);
    return socket;
}

static struct us_socket_t *on_timeout(struct us_socket_t *socket) {
    return socket;
}

static void on_turn(struct us_loop_t *loop) {
    (void)loop;
}

int main(int argc, char **argv) {
    options = parse(argc, argv);
    raise_descriptor_limit();
    struct us_loop_t *loop = us_create_loop(NULL, on_turn, on_turn, on_turn, 0);
    struct us_socket_context_options_t plain = {0};
    struct us_socket_context_t *context = us_create_socket_context(0, loop, 0, plain);
    us_socket_context_on_open(0, context, on_open);
    us_socket_context_on_data(0, context, on_data);
    us_socket_context_on_end(0, context, on_end);
    us_socket_context_on_writable(0, context, on_writable);
    us_socket_context_on_close(0, context, on_close);
    us_socket_context_on_timeout(0, context, on_timeout);
    us_socket_context_on_long_timeout(0, context, on_timeout);
    struct us_listen_socket_t *listener =
        us_socket_context_listen(0, context, "127.0.0.1", 0, LIBUS_LISTEN_DEFAULT, sizeof(struct connection));
    if (listener == NULL)
        give_up("listen");
    int fd = us_poll_fd((struct us_poll_t *)listener);
    const int on = 1;
    if (listen(fd, BACKLOG) != 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0)
        give_up("listen");
    announce(fd);
    us_loop_run(loop);
    return 0;
}
