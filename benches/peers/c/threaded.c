/* The server of epoll.c, with a second thread that sleeps, as most servers have one: for signals, names or logs. The
 * kernel then counts the users of a descriptor in each call on it (fdget in fs/file.c), which it leaves out for a
 * process of one thread. finale's command has such threads, so this is the loop that its echo is measured against. */
#define _GNU_SOURCE
#include <pthread.h>
#include <unistd.h>

static void *sleep_for_ever(void *unused) {
    for (;;)
        pause();
    return unused;
}

static void start_thread(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, sleep_for_ever, NULL);
}

#define BEGIN start_thread
#include "epoll.c"
