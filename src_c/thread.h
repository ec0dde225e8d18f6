/* A thread of the engine: detached, with a small stack; signals are for the threads that the program
   started. */
#ifndef FASTRNN_THREAD_H
#define FASTRNN_THREAD_H
#include <pthread.h>
#include <signal.h>

enum { THREAD_STACK = 1 << 20 };

/* Nonzero where the system has no thread left. */
static inline int start_thread(pthread_t *thread, void *(*run)(void *), void *given)
{
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, THREAD_STACK);
#if !defined(_WIN32)
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
#endif
    const int failed = pthread_create(thread, &detached, run, given);
#if !defined(_WIN32)
    pthread_sigmask(SIG_SETMASK, &before, 0);
#endif
    pthread_attr_destroy(&detached);
    return failed;
}

#endif
