#define _GNU_SOURCE
#include "CLinux.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

static atomic_bool is_refusing;

static void note_refusal(void) {
    static atomic_flag is_noted = ATOMIC_FLAG_INIT;
    if (atomic_flag_test_and_set(&is_noted)) return;
    apus_relay_note(
        "a thread was not started, and what was to run on it will not run: threads, Dispatch queues and Task.sleep need the permission "
        ".threads (server.sandbox.allows, or `allow: [threads]` in the file)");
}

#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer) || defined(APUS_STATIC)
// A sanitizer has a function of its own; a static program of ours starts no thread. The system call is refused all the same.
#else
// Takes the place of the C library's. Dispatch tries again once a second, for ever, when a thread cannot be started, and would hold the loop's
// only thread up: it is told that the thread runs. Nobody can wait for a detached thread; for the others the call fails.
__attribute__((visibility("default"))) int pthread_create(
    pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument) {
    static int (*_Atomic next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!atomic_load_explicit(&is_refusing, memory_order_relaxed)) {
        if (!next) next = (int (*)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *))dlsym(RTLD_NEXT, "pthread_create");
        return next ? next(thread, attributes, start, argument) : EAGAIN;
    }
    note_refusal();
    int state = PTHREAD_CREATE_JOINABLE;
    if (attributes) pthread_attr_getdetachstate(attributes, &state);
    if (state != PTHREAD_CREATE_DETACHED) return EAGAIN;
    *thread = pthread_self();
    return 0;
}
#endif

void apus_refuse_threads(void) { atomic_store(&is_refusing, 1); }

// The Swift runtime's hooks, with its calling convention (SWIFT_CC(swift)); see swift/Runtime/Concurrency.h. What is missing is null.
#define APUS_SWIFT __attribute__((swiftcall))
typedef APUS_SWIFT void enqueue(void *job, void *original);
extern enqueue *swift_task_enqueueGlobal_hook __attribute__((weak));
extern enqueue *swift_task_enqueueMainExecutor_hook __attribute__((weak));
extern APUS_SWIFT void swift_job_run(void *job, void *identity, void *implementation) __attribute__((weak));

static void (*take_job)(void *);

static APUS_SWIFT void enqueue_job(void *job, void *original) {
    (void)original;
    take_job(job);
}

int apus_take_jobs(void (*take)(void *job)) {
    if (!&swift_task_enqueueGlobal_hook || !swift_job_run) return -1;
    take_job = take;
    swift_task_enqueueGlobal_hook = enqueue_job;
    if (&swift_task_enqueueMainExecutor_hook) swift_task_enqueueMainExecutor_hook = enqueue_job;
    return 0;
}

int apus_main_queue(void) {
    int (*handle)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "_dispatch_get_main_queue_handle_4CF");
    return handle ? handle() : -1;
}

void apus_serve_main_queue(void) {
    static void (*serve)(void *);
    if (!serve) serve = (void (*)(void *))dlsym(RTLD_DEFAULT, "_dispatch_main_queue_callback_4CF");
    if (serve) serve(NULL);
}

void apus_run_job(void *job) { swift_job_run(job, NULL, NULL); }
