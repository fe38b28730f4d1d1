// zlib, and those of its calls that are macros and so cannot be imported. No logic lives here.
#ifndef APUS_CZLIB_H
#define APUS_CZLIB_H

#include <zlib.h>

// Raw deflate (RFC 1951): no header, no checksum.
static inline int apus_deflate_init(z_streamp stream, int level, int window_bits, int memory_level, int strategy) {
    return deflateInit2(stream, level, Z_DEFLATED, -window_bits, memory_level, strategy);
}

static inline int apus_inflate_init(z_streamp stream, int window_bits) { return inflateInit2(stream, -window_bits); }

#endif
