#pragma once
#include <stddef.h>
#include <stdint.h>

/// The socket calls that Swift's Glibc module does not show. Every function returns >= 0, or -errno.

/// An IP address and port: `family` is 4 or 6, the address in network order (4 or 16 bytes), the port in host order.
typedef struct {
    uint8_t family;
    uint8_t address[16];
    uint16_t port;
} csocket_endpoint;

/// A non-blocking, close-on-exec UDP socket bound to the wildcard address of `family` (4 or 6; 6 is v6-only).
/// `port` 0 lets the kernel choose. `buffer_size` is asked for both directions; the kernel may give less.
int csocket_udp_bind(int family, uint16_t port, int buffer_size);

/// Lets other sockets of this user bind to the port of `fd`, which is bound (SO_REUSEPORT). That it was bound without makes sure that
/// nobody else has the port.
int csocket_share_port(int fd);

/// As `csocket_udp_bind`, beside a socket whose port is shared. The kernel numbers the sockets of a port in the order in which they came.
int csocket_udp_bind_shared(int family, uint16_t port, int buffer_size);

/// Gives each datagram of a shared port to the socket whose number is in the upper `bits` (0 to 8) of the receiver index of its
/// WireGuard message, and to the first one if it has none (SO_ATTACH_REUSEPORT_CBPF). A number that no socket has leaves the choice to the
/// kernel. `fd` is any of the sockets.
int csocket_steer(int fd, unsigned bits);

/// The local port of a bound socket.
int csocket_local_port(int fd);

/// Whether the socket accepts `UDP_GRO`.
int csocket_enable_gro(int fd);

/// Asks for the local address and the ECN bits of each datagram that comes in.
int csocket_enable_arrival(int fd, int family);

/// Sets the mark that firewalls and routing rules see (SO_MARK). EPERM without CAP_NET_ADMIN.
int csocket_set_mark(int fd, uint32_t mark);

/// Sends `length` bytes to `to` with one `sendmsg`. With `segment_size` > 0 the kernel splits them into datagrams of that
/// size (UDP_SEGMENT). `source` is the local address to send from, `NULL` for the kernel's choice. `traffic_class` is the
/// outer DSCP and ECN byte; 0 leaves the socket's default.
long csocket_send(int fd, const csocket_endpoint *to, const csocket_endpoint *source, const void *bytes, size_t length, uint16_t segment_size, uint8_t traffic_class);

/// The most datagrams of one `csocket_send_each`.
enum { CSOCKET_SEND_MAX = 64 };

/// The same without UDP_SEGMENT, by one `sendmmsg`: datagrams of `size` bytes each, the last one possibly shorter. Returns the bytes of
/// those that the kernel took, from the first on; -errno if it did not take the first.
long csocket_send_each(int fd, const csocket_endpoint *to, const csocket_endpoint *source, const void *bytes, size_t length, uint16_t size, uint8_t traffic_class);

/// One read of a socket: a datagram, or several of one size that the kernel merged (UDP_GRO).
typedef struct {
    csocket_endpoint source;
    /// Where it was sent to; `family` is 0 if the kernel did not say. The port is 0.
    csocket_endpoint local;
    uint32_t length;
    /// 0 if nothing was merged.
    uint16_t segment_size;
    /// The two ECN bits of the IP header.
    uint8_t ecn;
} csocket_arrival;

/// The most reads of one `csocket_receive`.
enum { CSOCKET_RECEIVE_MAX = 8 };

/// Reads at most `count` times with one `recvmmsg` that does not wait; read number n goes to `buffer + n * stride`. Returns
/// how many there were.
int csocket_receive(int fd, void *buffer, size_t stride, int count, csocket_arrival *arrivals);

/// Resolves a host name; blocks. Writes at most `capacity` addresses with `port`, best first, to `found`. Returns their number,
/// or a negative status for `csocket_resolve_error`.
int csocket_resolve(const char *host, uint16_t port, csocket_endpoint *found, int capacity);

/// What a negative status of `csocket_resolve` means. The text is static.
const char *csocket_resolve_error(int status);

/// Nanoseconds of CLOCK_BOOTTIME: monotonic, counts time spent suspended.
uint64_t csocket_boottime_nanoseconds(void);

/// Nanoseconds that the machine has been suspended since it booted, to a millisecond.
uint64_t csocket_suspended_nanoseconds(void);

/// Wall-clock time: seconds since 1970 UTC; the nanoseconds go to `nanoseconds`.
uint64_t csocket_wall_seconds(uint32_t *nanoseconds);

/// Fills `bytes` from the kernel's generator. Does not return before it is done.
void csocket_random(void *bytes, size_t length);

/// Closes a descriptor.
void csocket_close(int fd);
