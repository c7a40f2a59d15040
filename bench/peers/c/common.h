/* What the C servers share: the command line, the answer's bytes, and the listening socket. None of it runs for a
 * connection, but for the arithmetic of `piece`. */
#ifndef PEERS_COMMON_H
#define PEERS_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mode { MODE_ANSWER, MODE_FIRST, MODE_ECHO };

struct options {
    enum mode mode;
    uint64_t request; /* MODE_FIRST: so many bytes, then the answer */
    uint64_t answer;
};

/* As many as may wait to be accepted; the kernel cuts it down to its own limit. */
enum { BACKLOG = 4096 };

/* How much at most goes into one write, or comes out of one read. */
enum { PIECE_BYTES = 64 << 10 };

/* What is read into: all connections share it, since what was read is used up at once. */
extern char buffer[PIECE_BYTES];

/* From the command line; without a valid one the program ends here. */
struct options parse(int argc, char **argv);

/* A listener on a free port, with the flags of socket(2); says where on stdout. Options are inherited from it. */
int listen_anywhere(int flags);

/* The line that whoever started the server waits for. */
void announce(int listener);

/* As many descriptors as the system allows at all. */
void raise_descriptor_limit(void);

/* The bytes that follow when `sent` of `total` are gone; *length is 0 at the end. */
const char *piece(uint64_t sent, uint64_t total, size_t *length);

/* Ends the program with what the system said. */
_Noreturn void give_up(const char *what);

#endif
