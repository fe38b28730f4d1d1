#define _GNU_SOURCE
#include "CLinux.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static atomic_bool is_refusing;

// Whether Dispatch has made a descriptor: for its main queue, or for a loop of its own. Both are
// made once, and are useless in a child that closes descriptors or must not share them.
static atomic_bool dispatch_is_used;

static void note_once(atomic_flag *is_noted, const char *text) {
    if (!atomic_flag_test_and_set(is_noted)) apus_relay_note(text);
}

#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer) || defined(APUS_STATIC)
// A sanitizer has functions of its own; a static program of ours starts no thread. The system calls
// are refused all the same.
#define APUS_INTERPOSES 0
#else
#define APUS_INTERPOSES 1
#define APUS_PUBLIC __attribute__((visibility("default")))
// The library's own function, which the one of the same name in this file hides.
#define APUS_NEXT(name)                                                                \
    ({                                                                                 \
        static __typeof__(&name) _Atomic next;                                         \
        if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                  \
        next;                                                                          \
    })

// Takes the place of the C library's. Dispatch retries once a second, for ever, when a thread
// cannot be started, which would block the loop's only thread, so success is reported. Nobody can
// wait for a detached thread; for the others the call fails.
APUS_PUBLIC int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    if (!atomic_load_explicit(&is_refusing, memory_order_relaxed)) return APUS_NEXT(pthread_create)(thread, attributes, start, argument);
    static atomic_flag is_noted = ATOMIC_FLAG_INIT;
    note_once(&is_noted,
        "a thread was not started, and its work will not run: threads and Dispatch's global queues need the permission .threads "
        "(server.sandbox.allows, or `allow: [threads]` in the file)");
    int state = PTHREAD_CREATE_JOINABLE;
    if (attributes) pthread_attr_getdetachstate(attributes, &state);
    if (state != PTHREAD_CREATE_DETACHED) return EAGAIN;
    *thread = pthread_self();
    return 0;
}

// What the sandbox refuses to look up, as it was before: FileManager.createDirectory with
// intermediate directories calls itself without end where the root directory seems to be missing,
// and takes an unreadable working directory for "".
static char working_directory[PATH_MAX];
static struct stat root_directory;
static long memory_pages;

APUS_PUBLIC char *getcwd(char *buffer, size_t size) {
    char *path = APUS_NEXT(getcwd)(buffer, size);
    if (path || errno != EACCES || !working_directory[0]) return path;
    size_t length = strlen(working_directory) + 1;
    if (!buffer) return strdup(working_directory);
    if (size < length) {
        errno = ERANGE;
        return NULL;
    }
    return memcpy(buffer, working_directory, length);
}

static int looked_up(int result, const char *path, struct stat *status) {
    if (result == 0 || errno != EACCES || strcmp(path, "/") != 0 || !root_directory.st_ino) return result;
    *status = root_directory;
    return 0;
}

APUS_PUBLIC int stat(const char *path, struct stat *status) { return looked_up(APUS_NEXT(stat)(path, status), path, status); }
APUS_PUBLIC int lstat(const char *path, struct stat *status) { return looked_up(APUS_NEXT(lstat)(path, status), path, status); }

// Dispatch opens /proc/THREAD/stat of its threads, and ends the process if it cannot. The sandbox
// allows the same file by its other name, which only threads of this process have.
APUS_PUBLIC int open(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | __O_TMPFILE)) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    int descriptor = APUS_NEXT(open)(path, flags, mode);
    if (descriptor >= 0 || errno != EACCES || strncmp(path, "/proc/", 6) != 0) return descriptor;
    const char *thread = path + 6;
    size_t digits = strspn(thread, "0123456789");
    char own[64];
    if (digits > 0 && digits < 20 && strcmp(thread + digits, "/stat") == 0) {
        snprintf(own, sizeof own, "/proc/self/task/%s", thread);
        descriptor = APUS_NEXT(open)(own, flags);
        if (descriptor < 0) errno = EACCES;
    }
    return descriptor;
}

// The C library does not look whether sysinfo fails, and takes uninitialised memory for the size of
// the machine's.
APUS_PUBLIC long sysconf(int name) {
    if (name == _SC_PHYS_PAGES && memory_pages > 0) return memory_pages;
    return APUS_NEXT(sysconf)(name);
}

// Dispatch and CoreFoundation end the process when they cannot make an epoll instance, an eventfd
// or a timerfd for an event loop of their own. Without threads that loop would never run: they get
// copies of descriptors that nothing waits for.
static int spare_epoll = -1, spare_event = -1;

static int spare(int descriptor) {
    static atomic_flag is_noted = ATOMIC_FLAG_INIT;
    note_once(&is_noted,
        "a timer or an event source of Dispatch or Foundation will not fire: Dispatch's need the permission .threads (server.sandbox.allows, or "
        "`allow: [threads]` in the file), Foundation's Timer a run loop; Task.sleep without a tolerance, asyncAfter of the main queue and the "
        "worker's schedule do not");
    return fcntl(descriptor, F_DUPFD_CLOEXEC, 0);
}

static void note_caller(void *caller) {
    if (atomic_load_explicit(&dispatch_is_used, memory_order_relaxed)) return;
    Dl_info information;
    if (!dladdr(caller, &information) || !information.dli_fname) return;
    if (strstr(information.dli_fname, "libdispatch")) atomic_store(&dispatch_is_used, 1);
}

APUS_PUBLIC int epoll_create1(int flags) {
    note_caller(__builtin_return_address(0));
    if (atomic_load_explicit(&is_refusing, memory_order_relaxed)) return spare(spare_epoll);
    return APUS_NEXT(epoll_create1)(flags);
}

APUS_PUBLIC int eventfd(unsigned int value, int flags) {
    note_caller(__builtin_return_address(0));
    if (atomic_load_explicit(&is_refusing, memory_order_relaxed)) return spare(spare_event);
    return APUS_NEXT(eventfd)(value, flags);
}

APUS_PUBLIC int timerfd_create(clockid_t clock, int flags) {
    if (atomic_load_explicit(&is_refusing, memory_order_relaxed)) return spare(spare_event);
    return APUS_NEXT(timerfd_create)(clock, flags);
}

APUS_PUBLIC int timerfd_settime(int timer, int flags, const struct itimerspec *value, struct itimerspec *old) {
    if (atomic_load_explicit(&is_refusing, memory_order_relaxed)) {
        if (old) *old = (struct itimerspec){0};
        return 0;
    }
    return APUS_NEXT(timerfd_settime)(timer, flags, value, old);
}
#endif

void apus_load_facts(void) {
#if APUS_INTERPOSES
    if (!APUS_NEXT(getcwd)(working_directory, sizeof working_directory)) working_directory[0] = 0;
    memory_pages = APUS_NEXT(sysconf)(_SC_PHYS_PAGES);
    if (APUS_NEXT(stat)("/", &root_directory) < 0) root_directory = (struct stat){0};
#endif
}

void apus_refuse_threads(void) {
#if APUS_INTERPOSES
    spare_epoll = epoll_create1(EPOLL_CLOEXEC);
    spare_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
#endif
    atomic_store(&is_refusing, 1);
}

// The Swift runtime's hooks, with its calling convention (SWIFT_CC(swift)); see
// swift/Runtime/Concurrency.h. What is missing is null.
#define APUS_SWIFT __attribute__((swiftcall))
typedef APUS_SWIFT void enqueue(void *job, void *original);
extern enqueue *swift_task_enqueueGlobal_hook __attribute__((weak));
extern enqueue *swift_task_enqueueMainExecutor_hook __attribute__((weak));
extern APUS_SWIFT void swift_job_run(void *job, void *identity, void *implementation) __attribute__((weak));

static void (*take_work)(void (*)(void *), void *);
static void (*take_delayed)(uint64_t, void (*)(void *), void *);
// Also the application's work for Dispatch's queues, not only the jobs of Swift's runtime.
static int takes_all;

static void run_job(void *job) { swift_job_run(job, NULL, NULL); }

static APUS_SWIFT void enqueue_job(void *job, void *original) {
    (void)original;
    take_work(run_job, job);
}

int apus_take_jobs(
    void (*take)(void (*work)(void *), void *context), void (*take_later)(uint64_t nanoseconds, void (*work)(void *), void *context),
    int all) {
    if (!&swift_task_enqueueGlobal_hook || !swift_job_run) return -1;
    take_work = take;
    take_delayed = take_later;
    takes_all = all;
    swift_task_enqueueGlobal_hook = take ? enqueue_job : NULL;
    if (&swift_task_enqueueMainExecutor_hook) swift_task_enqueueMainExecutor_hook = take ? enqueue_job : NULL;
    return 0;
}

int apus_dispatch_is_used(void) { return atomic_load(&dispatch_is_used); }

#if APUS_INTERPOSES
// A dispatch_time_t: nanoseconds of CLOCK_MONOTONIC; with the highest bit alone, of CLOCK_BOOTTIME;
// with both highest bits, of CLOCK_REALTIME, negated. See _dispatch_time_to_clock_and_value in
// libdispatch's src/shims/time.h.
static uint64_t nanoseconds_until(uint64_t when) {
    const uint64_t monotonic = 1ull << 63, wall = 1ull << 62;
    if (when == 0) return 0;
    clockid_t clock = !(when & monotonic) ? CLOCK_MONOTONIC : when & wall ? CLOCK_REALTIME : CLOCK_BOOTTIME;
    uint64_t time = !(when & monotonic) ? when : when & wall ? -when : when & ~monotonic;
    struct timespec now;
    if (clock_gettime(clock, &now) < 0) return 0;
    uint64_t current = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    return time > current ? time - current : 0;
}

static const uint64_t dispatch_forever = ~0ull;

static void *dispatch_object(const char *name) { return dlsym(RTLD_DEFAULT, name); }

// Whether a function that Dispatch is to call is one of Swift's runtime, which passes its jobs by
// few functions: the last is remembered.
static int is_runtime(void (*work)(void *)) {
    static void (*_Atomic known)(void *);
    if (work == atomic_load_explicit(&known, memory_order_relaxed)) return 1;
    Dl_info its, runtime;
    if (!swift_job_run || !dladdr((void *)swift_job_run, &runtime) || !dladdr((void *)work, &its)) return 0;
    if (its.dli_fbase != runtime.dli_fbase) return 0;
    atomic_store_explicit(&known, work, memory_order_relaxed);
    return 1;
}

// Take the place of Dispatch's, whose timers have a thread of their own: Task.sleep and asyncAfter.
APUS_PUBLIC void dispatch_after_f(uint64_t when, void *queue, void *context, void (*work)(void *)) {
    if (!take_delayed || !(takes_all || is_runtime(work))) return APUS_NEXT(dispatch_after_f)(when, queue, context, work);
    if (when != dispatch_forever) take_delayed(nanoseconds_until(when), work, context);
}

// Task.yield, jobs of the main actor, and what C libraries give to global and other queues, which
// would need a thread.
APUS_PUBLIC void dispatch_async_f(void *queue, void *context, void (*work)(void *)) {
    static void *main_queue;
    if (!main_queue) main_queue = dispatch_object("_dispatch_main_q");
    int takes = take_work && (is_runtime(work) || (takes_all && queue != main_queue));
    if (!takes) return APUS_NEXT(dispatch_async_f)(queue, context, work);
    take_work(work, context);
}

// Task.sleep with a tolerance is a source of the runtime, whose only event resumes the task: it is
// passed on by the thread of Dispatch on which it fires.
static void (*_Atomic runtime_event)(void *);

static void pass_event(void *context) {
    void (*handle)(void *) = runtime_event;
    if (take_work) return take_work(handle, context);
    handle(context);
}

APUS_PUBLIC void dispatch_source_set_event_handler_f(void *source, void (*handler)(void *)) {
    if (!take_work || !handler || !is_runtime(handler)) return APUS_NEXT(dispatch_source_set_event_handler_f)(source, handler);
    runtime_event = handler;
    APUS_NEXT(dispatch_source_set_event_handler_f)(source, pass_event);
}

// The runtime's own use of it, for a queue that no job comes to, would start a thread.
APUS_PUBLIC void dispatch_queue_set_width(void *queue, long width) {
    if (!take_work) APUS_NEXT(dispatch_queue_set_width)(queue, width);
}

struct delayed_block {
    void *queue, *block;
};

static void enqueue_block(void *context) {
    struct delayed_block delayed = *(struct delayed_block *)context;
    free(context);
    void (*async)(void *, void *) = (void (*)(void *, void *))dispatch_object("dispatch_async");
    void (*release)(void *) = (void (*)(void *))dispatch_object("dispatch_release");
    void (*release_block)(void *) = (void (*)(void *))dispatch_object("_Block_release");
    if (async) async(delayed.queue, delayed.block);
    if (release_block) release_block(delayed.block);
    if (release) release(delayed.queue);
}

APUS_PUBLIC void dispatch_after(uint64_t when, void *queue, void *block) {
    if (!take_delayed || !takes_all) return APUS_NEXT(dispatch_after)(when, queue, block);
    if (when == dispatch_forever) return;
    void (*retain)(void *) = (void (*)(void *))dispatch_object("dispatch_retain");
    void *(*copy)(void *) = (void *(*)(void *))dispatch_object("_Block_copy");
    struct delayed_block *delayed = malloc(sizeof *delayed);
    if (!retain || !copy || !delayed) abort();
    retain(queue);
    *delayed = (struct delayed_block){queue, copy(block)};
    take_delayed(nanoseconds_until(when), enqueue_block, delayed);
}
#endif

int apus_main_queue(void) {
    int (*handle)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "_dispatch_get_main_queue_handle_4CF");
    return handle ? handle() : -1;
}

void apus_serve_main_queue(void) {
    static void (*serve)(void *);
    if (!serve) serve = (void (*)(void *))dlsym(RTLD_DEFAULT, "_dispatch_main_queue_callback_4CF");
    if (serve) serve(NULL);
}
