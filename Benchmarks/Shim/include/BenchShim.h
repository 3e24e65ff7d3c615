#ifndef BENCH_SHIM_H
#define BENCH_SHIM_H
#include <stddef.h>
#include <stdint.h>

/// Allocations of this process since it began.
uint64_t bench_allocations(void);

/// Bytes that are allocated now.
uint64_t bench_heap_bytes(void);

/// Nanoseconds that `rounds` calls of libsodium's seal take on `size` bytes of `buffer`, from C; 16 bytes of room behind them.
uint64_t bench_seal(uint8_t *buffer, size_t size, int rounds);
/// The same for open, with a fresh copy of `sealed` in `work` for each. 0 if one fails.
uint64_t bench_open(uint8_t *work, uint8_t *sealed, size_t size, int rounds);
/// The same for X25519, libsodium's and libcrypto's.
uint64_t bench_x25519_sodium(int rounds);
uint64_t bench_x25519_crypto(int rounds);

/// What is printed leaves with each line, to whatever it goes.
void bench_print_by_line(void);

/// CPU time of this thread.
uint64_t bench_processor_nanoseconds(void);
/// CPU time of the whole process, and the most memory that it had, in kilobytes.
uint64_t bench_process_nanoseconds(void);
uint64_t bench_peak_kilobytes(void);

/// A monotonic clock.
uint64_t bench_nanoseconds(void);

/// Sends `count` messages of `size` bytes in turn to 127.0.0.1:`port` (or the address given), `rate` a second for `seconds`, from
/// `sources` sockets on addresses 127.`net`.x.y; one socket on the kernel's choice if `sources` is 0. Returns how many were sent.
uint64_t bench_flood(
    const char *address, uint16_t port, const uint8_t *messages, int count, int size, uint64_t rate, double seconds, int sources, int net);

/// A UDP socket that talks to one IPv4 address only; -1 if there is none.
int bench_udp_connect(const char *address, uint16_t port);
int bench_udp_send(int descriptor, const uint8_t *message, size_t size);
/// The length of the next datagram; -1 if none comes in so many milliseconds.
int bench_udp_receive(int descriptor, uint8_t *message, size_t size, int milliseconds);

/// Carries datagrams between whoever talks to 127.0.0.1:`front` and 127.0.0.1:`target`, each way `delay` nanoseconds late, for `seconds`.
/// `loss` (0 to 1) takes those on the way back. Gives the datagrams that went back and those that were lost; -1 without sockets.
int bench_relay(
    uint16_t front, uint16_t target, double loss, uint64_t delay, uint64_t seed, double seconds, uint64_t *passed, uint64_t *lost);

/// Gives bytes to whoever connects and asks, or takes them; until the process ends. -1 if it cannot listen.
int bench_kernel_serve(const char *address, uint16_t port);
/// Asks such a server over `streams` connections (at most 64) for `bytes` each: 'd' receives them, 'u' sends them. Gives the nanoseconds
/// that took, connecting left out; 0 if something failed.
uint64_t bench_kernel_transfer(const char *address, uint16_t port, char direction, int streams, uint64_t bytes);

/// Asks for `path` of `https://name`, at this address, over one new TLS connection after another from so many threads (at most 64).
/// Gives how many were answered with 200 and how many were not; -1 if it could not begin.
int bench_tls_connections(
    const char *address, uint16_t port, const char *name, const char *path, int threads, double seconds, uint64_t *completed,
    uint64_t *failed);

/// Sleeps until the monotonic clock is there.
void bench_wait_until(uint64_t nanoseconds);
/// Civil time, since 1970.
uint64_t bench_civil_nanoseconds(void);

#endif
