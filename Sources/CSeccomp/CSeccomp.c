#define _GNU_SOURCE
#include "CSeccomp.h"

#include <linux/seccomp.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile uint64_t *violation;

// Everything here is async-signal-safe; the call that is forbidden has not been carried out.
static void violated(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    *violation = (uint64_t)(uint32_t)info->si_syscall + 1;
    syscall(apus_deadly_call());
    __builtin_trap();
}

int apus_deadly_call(void) { return SYS_kexec_load; }

int apus_note_violations(volatile uint64_t *cell) {
    violation = cell;
    struct sigaction action = {.sa_sigaction = violated, .sa_flags = SA_SIGINFO | SA_NODEFER};
    return sigaction(SIGSYS, &action, NULL);
}

int apus_has_seccomp(void) {
    uint32_t action = SECCOMP_RET_KILL_PROCESS;
    return syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}
