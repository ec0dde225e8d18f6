#include "pool.h"
#include "clock.h"
#include "thread.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define ALLOW(memory, size) __asan_unpoison_memory_region(memory, size)
#define FORBID(memory, size) __asan_poison_memory_region(memory, size)
enum { KEPT_MIB = 0 }; /* so that what is used after its end is seen */
#else
#define ALLOW(memory, size) (void)(memory)
enum { KEPT_MIB = 512 };
#endif
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#endif

enum {
    KEPT = 32, /* free blocks at most */
    HUGE_PAGE = 2 << 20,
    LOOK_SECONDS = 1,
};
static const size_t KEPT_BYTES = (size_t)KEPT_MIB << 20;
/* Less than this may wait for ever: it is not worth a thread. */
static const size_t WATCHED_BYTES = (size_t)64 << 20;
static const long long IDLE_NANOSECONDS = 2000000000;

typedef struct {
    void *memory;
    size_t size;
    long long since; /* in nanoseconds */
} block;

static block kept[KEPT]; /* the one that waits longest first */
static int kept_count, has_keeper;
static size_t kept_bytes;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all of these */

static void lock(void)
{
    pthread_mutex_lock(&mutex);
}

static void unlock(void)
{
    pthread_mutex_unlock(&mutex);
}

static void forget(int i)
{
    kept_bytes -= kept[i].size;
    kept_count--;
    memmove(&kept[i], &kept[i + 1], (kept_count - i) * sizeof(block));
}

static void *take_kept(size_t *size)
{
    void *memory = 0;
    int best = -1;
    lock();
    for (int i = 0; i < kept_count; i++)
        if (kept[i].size >= *size && kept[i].size <= *size + *size / 4
            && (best < 0 || kept[i].size < kept[best].size))
            best = i;
    if (best >= 0) {
        memory = kept[best].memory;
        *size = kept[best].size;
        forget(best);
    }
    unlock();
    return memory;
}

#if defined(__SANITIZE_ADDRESS__)
/* Aligned already, so that the bytes with which a caller would align it are nobody's. */
static void *fresh(size_t size)
{
    void *memory = 0;
    if (posix_memalign(&memory, POOL_ALIGNMENT, size))
        return 0;
    FORBID((char *)memory + size - POOL_ALIGNMENT, POOL_ALIGNMENT);
    return memory;
}
#else
static void *fresh(size_t size)
{
#ifndef _WIN32
    if (size >= HUGE_PAGE) {
        void *memory = 0;
        if (posix_memalign(&memory, HUGE_PAGE, size))
            return 0;
#ifdef MADV_HUGEPAGE
        madvise(memory, size, MADV_HUGEPAGE);
#endif
        return memory;
    }
#endif
    return malloc(size);
}
#endif

/* Gives back the blocks that wait since that moment or longer. */
static size_t release_until(long long moment)
{
    void *dropped[KEPT];
    size_t bytes = 0;
    int drops = 0;
    lock();
    while (kept_count && kept[0].since <= moment) {
        bytes += kept[0].size;
        dropped[drops++] = kept[0].memory;
        forget(0);
    }
    unlock();
    for (int i = 0; i < drops; i++)
        free(dropped[i]);
    return bytes;
}

size_t pool_release(void)
{
    return release_until(INT64_MAX);
}

/* A thread that lives as long as much waits. */
static void *keep(void *unused)
{
    (void)unused;
    for (int waits = 1; waits;) {
        nanosleep(&(struct timespec){.tv_sec = LOOK_SECONDS}, 0);
        release_until(nanoseconds() - IDLE_NANOSECONDS);
        lock();
        waits = has_keeper = kept_bytes >= WATCHED_BYTES;
        unlock();
    }
    return 0;
}

/* Where there is no thread left blocks wait until somebody wants them, as they did before. */
static void start_keeper(void)
{
    pthread_t thread;
    if (start_thread(&thread, keep, 0)) {
        lock();
        has_keeper = 0;
        unlock();
    }
}

void *pool_take(size_t *size)
{
    void *memory = 0;
    if (*size > PTRDIFF_MAX)
        return 0;
    if (*size >= HUGE_PAGE / 2)
        *size = (*size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (*size >= KEPT_FROM)
        memory = take_kept(size);
    if (!memory && !(memory = fresh(*size)) && pool_release())
        memory = fresh(*size);
    return memory;
}

void pool_give(void *memory, size_t size)
{
    void *dropped[KEPT];
    int drops = 0, keeper_wanted;
    ALLOW(memory, size); /* between the pieces of work space (layout.h) */
    if (size < KEPT_FROM || size > KEPT_BYTES) {
        free(memory);
        return;
    }
    lock();
    while (kept_count == KEPT || kept_bytes + size > KEPT_BYTES) {
        dropped[drops++] = kept[0].memory;
        forget(0);
    }
    kept[kept_count++] = (block){memory, size, nanoseconds()};
    kept_bytes += size;
    keeper_wanted = !has_keeper && kept_bytes >= WATCHED_BYTES;
    has_keeper |= keeper_wanted;
    unlock();
    if (keeper_wanted)
        start_keeper();
    for (int i = 0; i < drops; i++)
        free(dropped[i]);
}

#if !defined(_WIN32)
static void start_anew(void)
{
    has_keeper = 0;
    unlock();
}

__attribute__((constructor)) static void know_of_forks(void)
{
    pthread_atfork(lock, unlock, start_anew);
}
#endif
