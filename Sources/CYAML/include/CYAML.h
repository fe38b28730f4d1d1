// libyaml: YAML 1.1 as events. No logic lives here.
#ifndef APUS_CYAML_H
#define APUS_CYAML_H

#include <yaml.h>

#endif
