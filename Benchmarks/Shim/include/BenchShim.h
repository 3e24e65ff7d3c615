#ifndef BENCH_SHIM_H
#define BENCH_SHIM_H
#include <stddef.h>
#include <stdint.h>

/// Allocations of this process since it began.
uint64_t bench_allocations(void);

/// Nanoseconds that `rounds` calls of libsodium's seal (or open) take on `size` bytes, from C.
uint64_t bench_seal(size_t size, int rounds);
uint64_t bench_open(size_t size, int rounds);
/// The same for X25519, libsodium's and libcrypto's.
uint64_t bench_x25519_sodium(int rounds);
uint64_t bench_x25519_crypto(int rounds);

/// A monotonic clock.
uint64_t bench_nanoseconds(void);

/// Sends `count` messages of `size` bytes in turn to 127.0.0.1:`port` (or the address given), `rate` a second for `seconds`, from
/// `sources` sockets on addresses 127.`net`.x.y; one socket on the kernel's choice if `sources` is 0. Returns how many were sent.
uint64_t bench_flood(
    const char *address, uint16_t port, const uint8_t *messages, int count, int size, uint64_t rate, double seconds, int sources, int net);

#endif
