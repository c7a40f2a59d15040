/* The server of epoll.c, with a second thread that sleeps, as most servers have one: for signals, names or logs. The
 * kernel then counts the users of a descriptor in each call on it (fdget in fs/file.c), which it leaves out for a
 * process of one thread. finale's command has such threads, so this is the loop that its echo is measured against. */
#include "epoll.c"

#include <pthread.h>

static void *sleep_for_ever(void *unused) {
    for (;;)
        pause();
    return unused;
}

/* Before main. */
__attribute__((constructor)) static void start_thread(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, sleep_for_ever, NULL);
}
