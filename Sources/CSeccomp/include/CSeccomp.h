// libseccomp, those of its names that are macros and so cannot be imported, and the handler of a
// violation.
#ifndef APUS_CSECCOMP_H
#define APUS_CSECCOMP_H

#include <seccomp.h>
#include <stdint.h>
#include <stdlib.h>

static const uint32_t apus_act_allow = SCMP_ACT_ALLOW;
static const uint32_t apus_act_kill_process = SCMP_ACT_KILL_PROCESS;
static const uint32_t apus_act_trap = SCMP_ACT_TRAP;
static inline void apus_free(void *memory) { free(memory); }
static inline uint32_t apus_act_errno(uint16_t code) { return SCMP_ACT_ERRNO(code); }

// Until the process ends: a call that the filter traps is noted in `cell`, as its number plus one;
// then the process dies of SIGSYS. It dies by a call that the filter kills for: `apus_deadly_call`.
int apus_note_violations(volatile uint64_t *cell);
int apus_deadly_call(void);

// Whether the kernel has seccomp filters that end the process.
int apus_has_seccomp(void);

#endif
