/* The server on libuv, after the echo server of its own guide: uv_listen, uv_accept, uv_read_start, and uv_close once
 * all is said.
 *
 * Fair: uv_try_write sends at once and uv_write queues only what the kernel does not take, all reads share one buffer,
 * options are inherited from the listener, and uv_close after the client's FIN sends ours without a uv_shutdown (which
 * would cost one more call and one more pass through the loop). Half-close is libuv's default: UV_EOF ends only
 * the reading. */
#define _GNU_SOURCE
#include "common.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <uv.h>

struct connection {
    uv_tcp_t tcp;
    bool answering;
    bool ended;
    uint64_t count; /* of the request's bytes, then of the answer's */
};

/* What the client did not take at once; lives until libuv has sent it. */
struct rest {
    uv_write_t write;
    char bytes[];
};

static struct options options;

static void on_read(uv_stream_t *stream, ssize_t received, const uv_buf_t *unused);

static void on_close(uv_handle_t *handle) {
    free(handle->data);
}

static void give_back(struct connection *connection) {
    if (!uv_is_closing((uv_handle_t *)&connection->tcp))
        uv_close((uv_handle_t *)&connection->tcp, on_close);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *into) {
    (void)handle;
    (void)suggested;
    *into = uv_buf_init(buffer, sizeof buffer);
}

static void on_shutdown(uv_shutdown_t *request, int status) {
    struct connection *connection = request->handle->data;
    free(request);
    if (status < 0 || connection->ended)
        give_back(connection);
}

/* All is sent: after their FIN the close carries ours; before it, only our half may end. */
static void finish(struct connection *connection) {
    if (connection->ended) {
        give_back(connection);
        return;
    }
    uv_shutdown_t *request = malloc(sizeof *request);
    if (request == NULL || uv_shutdown(request, (uv_stream_t *)&connection->tcp, on_shutdown) < 0) {
        free(request);
        give_back(connection);
    }
}

static void on_piece(uv_write_t *write, int status);

/* Sends until the kernel takes no more, then leaves one piece with libuv. */
static void send_answer(struct connection *connection) {
    uv_stream_t *stream = (uv_stream_t *)&connection->tcp;
    while (connection->count < options.answer) {
        size_t length;
        const char *bytes = piece(connection->count, options.answer, &length);
        uv_buf_t piece = uv_buf_init((char *)bytes, (unsigned)length);
        int sent = uv_try_write(stream, &piece, 1);
        if (sent >= 0) {
            connection->count += (uint64_t)sent;
            continue;
        }
        uv_write_t *write = sent == UV_EAGAIN ? malloc(sizeof *write) : NULL;
        if (write == NULL || uv_write(write, stream, &piece, 1, on_piece) < 0) {
            free(write);
            give_back(connection);
            return;
        }
        connection->count += length;
        return;
    }
    finish(connection);
}

static void on_piece(uv_write_t *write, int status) {
    struct connection *connection = write->handle->data;
    free(write);
    if (status < 0)
        give_back(connection);
    else
        send_answer(connection);
}

static void on_rest(uv_write_t *write, int status) {
    struct connection *connection = write->handle->data;
    free(write->data);
    if (status < 0 || uv_read_start((uv_stream_t *)&connection->tcp, on_alloc, on_read) < 0)
        give_back(connection);
}

/* What the client does not take is copied, and nothing more is read until it has taken it. */
static void echo(struct connection *connection, size_t received) {
    uv_stream_t *stream = (uv_stream_t *)&connection->tcp;
    uv_buf_t bytes = uv_buf_init(buffer, (unsigned)received);
    int sent = uv_try_write(stream, &bytes, 1);
    if (sent == (int)received)
        return;
    if (sent < 0 && sent != UV_EAGAIN) {
        give_back(connection);
        return;
    }
    size_t from = sent < 0 ? 0 : (size_t)sent;
    struct rest *rest = malloc(sizeof *rest + received - from);
    if (rest == NULL) {
        give_back(connection);
        return;
    }
    memcpy(rest->bytes, buffer + from, received - from);
    rest->write.data = rest;
    bytes = uv_buf_init(rest->bytes, (unsigned)(received - from));
    uv_read_stop(stream);
    if (uv_write(&rest->write, stream, &bytes, 1, on_rest) < 0) {
        free(rest);
        give_back(connection);
    }
}

static void begin_answer(struct connection *connection) {
    connection->answering = true;
    connection->count = 0;
    send_answer(connection);
}

static void on_data(struct connection *connection, size_t received) {
    switch (options.mode) {
    case MODE_ANSWER:
        break;
    case MODE_FIRST:
        connection->count += connection->answering ? 0 : received;
        if (!connection->answering && connection->count >= options.request)
            begin_answer(connection);
        break;
    case MODE_ECHO:
        echo(connection, received);
        break;
    }
}

static void on_end(struct connection *connection) {
    connection->ended = true;
    switch (options.mode) {
    case MODE_ANSWER:
        begin_answer(connection);
        break;
    case MODE_FIRST:
        /* Whatever is still to be sent closes it when it is sent. */
        if (!connection->answering || connection->tcp.write_queue_size == 0)
            give_back(connection);
        break;
    case MODE_ECHO:
        give_back(connection);
        break;
    }
}

static void on_read(uv_stream_t *stream, ssize_t received, const uv_buf_t *unused) {
    (void)unused;
    struct connection *connection = stream->data;
    if (received > 0)
        on_data(connection, (size_t)received);
    else if (received == UV_EOF)
        on_end(connection);
    else if (received < 0)
        give_back(connection);
}

static void on_connection(uv_stream_t *listener, int status) {
    if (status < 0)
        return;
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        return;
    uv_tcp_init(listener->loop, &connection->tcp);
    connection->tcp.data = connection;
    uv_stream_t *stream = (uv_stream_t *)&connection->tcp;
    if (uv_accept(listener, stream) < 0 || uv_read_start(stream, on_alloc, on_read) < 0) {
        give_back(connection);
        return;
    }
    if (options.mode == MODE_FIRST && options.request == 0)
        begin_answer(connection);
}

int main(int argc, char **argv) {
    options = parse(argc, argv);
    raise_descriptor_limit();
    signal(SIGPIPE, SIG_IGN);
    const int on = 1;
    struct sockaddr_in addr;
    uv_tcp_t listener;
    uv_os_fd_t fd;
    uv_loop_t *loop = uv_default_loop();
    uv_ip4_addr("127.0.0.1", 0, &addr);
    /* libuv sets SO_REUSEADDR itself. */
    if (uv_tcp_init_ex(loop, &listener, AF_INET) < 0 || uv_tcp_bind(&listener, (struct sockaddr *)&addr, 0) < 0 ||
        uv_fileno((uv_handle_t *)&listener, &fd) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
        uv_listen((uv_stream_t *)&listener, BACKLOG, on_connection) < 0)
        give_up("listen");
    announce(fd);
    return uv_run(loop, UV_RUN_DEFAULT);
}
