/* The protocol of src/service.rs on uSockets with OpenSSL, for the memory of idle connections only: the library sends no
 * close_notify when the client's arrives.
 *
 * Fair: all connections share the loop's buffers, as the library has it, and `ssl_prefer_low_memory_usage` is on. That
 * option sets SSL_MODE_RELEASE_BUFFERS, so OpenSSL returns its record buffers when they are empty. */
#define _GNU_SOURCE
#include "common.h"

#include <libusockets.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

struct connection {
    unsigned char header[9];
    unsigned char filled;
    uint64_t upload;
    uint64_t pending;
};

static const char zeros[PIECE_BYTES];

static struct connection *connection_of(struct us_socket_t *socket) {
    return us_socket_ext(1, socket);
}

static void command(struct connection *connection) {
    uint64_t number = 0;
    for (int at = 1; at < 9; at++)
        number = number << 8 | connection->header[at];
    switch (connection->header[0]) {
    case 'p':
        connection->pending += 1;
        break;
    case 'd':
        if (connection->filled < 9)
            return;
        connection->pending += number;
        break;
    case 'u':
        if (connection->filled < 9)
            return;
        connection->upload = number;
        break;
    }
    connection->filled = 0;
}

static struct us_socket_t *on_writable(struct us_socket_t *socket) {
    struct connection *connection = connection_of(socket);
    while (connection->pending > 0) {
        uint64_t bytes = connection->pending < PIECE_BYTES ? connection->pending : PIECE_BYTES;
        int sent = us_socket_write(1, socket, zeros, (int)bytes, 0);
        connection->pending -= (uint64_t)sent;
        if ((uint64_t)sent < bytes)
            break;
    }
    return socket;
}

static struct us_socket_t *on_data(struct us_socket_t *socket, char *data, int length) {
    struct connection *connection = connection_of(socket);
    for (int at = 0; at < length;) {
        if (connection->upload > 0) {
            uint64_t left = (uint64_t)(length - at);
            uint64_t taken = connection->upload < left ? connection->upload : left;
            connection->upload -= taken;
            connection->pending += connection->upload == 0;
            at += (int)taken;
            continue;
        }
        connection->header[connection->filled++] = (unsigned char)data[at++];
        command(connection);
    }
    return on_writable(socket);
}

static struct us_socket_t *on_open(struct us_socket_t *socket, int is_client, char *ip, int ip_length) {
    (void)is_client;
    (void)ip;
    (void)ip_length;
    *connection_of(socket) = (struct connection){0};
    return socket;
}

static struct us_socket_t *on_end(struct us_socket_t *socket) {
    return us_socket_close(1, socket, 0, NULL);
}

static struct us_socket_t *on_close(struct us_socket_t *socket, int code, void *reason) {
    (void)code;
    (void)reason;
    return socket;
}

static struct us_socket_t *on_timeout(struct us_socket_t *socket) {
    return socket;
}

static void on_turn(struct us_loop_t *loop) {
    (void)loop;
}

int main(int argc, char **argv) {
    char cert[4096], key[4096];
    if (argc != 2) {
        fprintf(stderr, "usage: usockets FOLDER\n");
        return 2;
    }
    snprintf(cert, sizeof cert, "%s/cert.pem", argv[1]);
    snprintf(key, sizeof key, "%s/key.pem", argv[1]);
    raise_descriptor_limit();
    struct us_loop_t *loop = us_create_loop(NULL, on_turn, on_turn, on_turn, 0);
    struct us_socket_context_options_t options = {
        .cert_file_name = cert, .key_file_name = key, .ssl_prefer_low_memory_usage = 1};
    struct us_socket_context_t *context = us_create_socket_context(1, loop, 0, options);
    if (context == NULL)
        give_up("certificate");
    SSL_CTX *tls = us_socket_context_get_native_handle(1, context);
    SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION);
    SSL_CTX_set_ciphersuites(tls, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set1_groups_list(tls, "X25519");
    SSL_CTX_set_num_tickets(tls, 0);
    us_socket_context_on_open(1, context, on_open);
    us_socket_context_on_data(1, context, on_data);
    us_socket_context_on_end(1, context, on_end);
    us_socket_context_on_writable(1, context, on_writable);
    us_socket_context_on_close(1, context, on_close);
    us_socket_context_on_timeout(1, context, on_timeout);
    us_socket_context_on_long_timeout(1, context, on_timeout);
    struct us_listen_socket_t *listener =
        us_socket_context_listen(1, context, "127.0.0.1", 0, LIBUS_LISTEN_DEFAULT, sizeof(struct connection));
    if (listener == NULL)
        give_up("listen");
    int fd = us_poll_fd((struct us_poll_t *)listener);
    if (listen(fd, BACKLOG) != 0)
        give_up("listen");
    announce(fd);
    us_loop_run(loop);
    return 0;
}
