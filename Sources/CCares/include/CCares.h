// c-ares: names to addresses without threads. No logic lives here.
#ifndef APUS_CCARES_H
#define APUS_CCARES_H

#include <ares.h>

#endif
