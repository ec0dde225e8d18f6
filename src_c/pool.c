#include "pool.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define ALLOW(memory, size) __asan_unpoison_memory_region(memory, size)
#else
#define ALLOW(memory, size) (void)(memory)
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
};
static const size_t KEPT_BYTES = (size_t)512 << 20;

typedef struct {
    void *memory;
    size_t size;
} block;

static block kept[KEPT]; /* the one that waits longest first */
static int kept_count;
static size_t kept_bytes;
static char taken;

static void lock(void)
{
    while (__atomic_test_and_set(&taken, __ATOMIC_ACQUIRE))
        ;
}

static void unlock(void)
{
    __atomic_clear(&taken, __ATOMIC_RELEASE);
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

void *pool_take(size_t *size)
{
    void *memory = 0;
    if (*size > PTRDIFF_MAX)
        return 0;
    if (*size >= HUGE_PAGE / 2)
        *size = (*size + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    if (*size >= KEPT_FROM)
        memory = take_kept(size);
    return memory ? memory : fresh(*size);
}

void pool_give(void *memory, size_t size)
{
    void *dropped[KEPT];
    int drops = 0;
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
    kept[kept_count++] = (block){memory, size};
    kept_bytes += size;
    unlock();
    for (int i = 0; i < drops; i++)
        free(dropped[i]);
}
