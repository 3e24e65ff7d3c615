#define _GNU_SOURCE
#include "CSocketShim.h"

#include <errno.h>
#include <linux/filter.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef SOL_UDP
#define SOL_UDP 17
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#ifndef SO_ATTACH_REUSEPORT_CBPF
#define SO_ATTACH_REUSEPORT_CBPF 51
#endif

static socklen_t to_sockaddr(const csocket_endpoint *from, struct sockaddr_storage *to) {
    memset(to, 0, sizeof *to);
    if (from->family == 4) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)to;
        v4->sin_family = AF_INET;
        v4->sin_port = htons(from->port);
        memcpy(&v4->sin_addr, from->address, 4);
        return sizeof *v4;
    }
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)to;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(from->port);
    memcpy(&v6->sin6_addr, from->address, 16);
    return sizeof *v6;
}

static int udp_bind(int family, uint16_t port, int buffer_size, int is_shared) {
    int fd = socket(family == 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -errno;
    int on = 1;
    if (family == 6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0) goto fail;
    if (is_shared && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0) goto fail;
    // A smaller buffer than asked for is no error: the kernel clamps to net.core.{r,w}mem_max.
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer_size, sizeof buffer_size);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &buffer_size, sizeof buffer_size);
    csocket_endpoint any = {.family = (uint8_t)family, .port = port};
    struct sockaddr_storage address;
    socklen_t length = to_sockaddr(&any, &address);
    if (bind(fd, (struct sockaddr *)&address, length) < 0) goto fail;
    return fd;
fail:;
    int error = errno;
    close(fd);
    return -error;
}

int csocket_udp_bind(int family, uint16_t port, int buffer_size) { return udp_bind(family, port, buffer_size, 0); }

int csocket_udp_bind_shared(int family, uint16_t port, int buffer_size) { return udp_bind(family, port, buffer_size, 1); }

int csocket_share_port(int fd) {
    int on = 1;
    return setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) < 0 ? -errno : 0;
}

int csocket_steer(int fd, unsigned bits) {
    // Offset 0 is the first byte of the message, its type. The index is little-endian: its upper bits are in its fourth byte. A load
    // beyond the end of the datagram ends the program with 0.
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 4, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 3, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 2, 3, 0),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 4 + 3),
        BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 8 + 3),
        BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 8 - bits),
        BPF_STMT(BPF_RET | BPF_A, 0),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof program) < 0 ? -errno : 0;
}

int csocket_local_port(int fd) {
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0) return -errno;
    return address.ss_family == AF_INET ? ntohs(((struct sockaddr_in *)&address)->sin_port)
                                        : ntohs(((struct sockaddr_in6 *)&address)->sin6_port);
}

int csocket_enable_gro(int fd) {
    int on = 1;
    return setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on) < 0 ? -errno : 0;
}

int csocket_enable_arrival(int fd, int family) {
    int on = 1;
    int level = family == 4 ? IPPROTO_IP : IPPROTO_IPV6;
    if (setsockopt(fd, level, family == 4 ? IP_PKTINFO : IPV6_RECVPKTINFO, &on, sizeof on) < 0) return -errno;
    return setsockopt(fd, level, family == 4 ? IP_RECVTOS : IPV6_RECVTCLASS, &on, sizeof on) < 0 ? -errno : 0;
}

int csocket_set_mark(int fd, uint32_t mark) { return setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) < 0 ? -errno : 0; }

static struct cmsghdr *append_cmsg(struct msghdr *message, struct cmsghdr *previous, int level, int type, const void *value, size_t size) {
    struct cmsghdr *header = previous ? CMSG_NXTHDR(message, previous) : CMSG_FIRSTHDR(message);
    header->cmsg_level = level;
    header->cmsg_type = type;
    header->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(header), value, size);
    return header;
}

typedef union {
    char bytes[CMSG_SPACE(sizeof(uint16_t)) + CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct in6_pktinfo))];
    struct cmsghdr alignment;
} send_control;

// Everything of a message but its bytes.
static struct msghdr envelope(const csocket_endpoint *to, const csocket_endpoint *source, uint16_t segment_size, uint8_t traffic_class,
                              struct sockaddr_storage *address, send_control *control) {
    memset(control, 0, sizeof *control);
    struct msghdr message = {.msg_name = address, .msg_namelen = to_sockaddr(to, address)};
    message.msg_control = control->bytes;
    message.msg_controllen = sizeof control->bytes;
    size_t used = 0;
    struct cmsghdr *last = NULL;
    if (segment_size > 0) {
        last = append_cmsg(&message, last, SOL_UDP, UDP_SEGMENT, &segment_size, sizeof segment_size);
        used += CMSG_SPACE(sizeof segment_size);
    }
    if (source && to->family == 4) {
        struct in_pktinfo info = {0};
        memcpy(&info.ipi_spec_dst, source->address, 4);
        last = append_cmsg(&message, last, IPPROTO_IP, IP_PKTINFO, &info, sizeof info);
        used += CMSG_SPACE(sizeof info);
    } else if (source) {
        struct in6_pktinfo info = {0};
        memcpy(&info.ipi6_addr, source->address, 16);
        last = append_cmsg(&message, last, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof info);
        used += CMSG_SPACE(sizeof info);
    }
    if (traffic_class != 0) {
        int value = traffic_class;
        if (to->family == 4) last = append_cmsg(&message, last, IPPROTO_IP, IP_TOS, &value, sizeof value);
        else last = append_cmsg(&message, last, IPPROTO_IPV6, IPV6_TCLASS, &value, sizeof value);
        used += CMSG_SPACE(sizeof value);
    }
    message.msg_controllen = used;
    if (used == 0) message.msg_control = NULL;
    return message;
}

long csocket_send(int fd, const csocket_endpoint *to, const csocket_endpoint *source, const void *bytes, size_t length, uint16_t segment_size, uint8_t traffic_class) {
    struct sockaddr_storage address;
    send_control control;
    struct msghdr message = envelope(to, source, segment_size, traffic_class, &address, &control);
    struct iovec vector = {.iov_base = (void *)bytes, .iov_len = length};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    return sent < 0 ? -errno : sent;
}

long csocket_send_each(int fd, const csocket_endpoint *to, const csocket_endpoint *source, const void *bytes, size_t length, uint16_t size, uint8_t traffic_class) {
    struct sockaddr_storage address;
    send_control control;
    struct msghdr message = envelope(to, source, 0, traffic_class, &address, &control);
    struct mmsghdr messages[CSOCKET_SEND_MAX];
    struct iovec vectors[CSOCKET_SEND_MAX];
    unsigned count = 0;
    for (size_t offset = 0; offset < length && count < CSOCKET_SEND_MAX; offset += size, count++) {
        size_t rest = length - offset;
        vectors[count] = (struct iovec){.iov_base = (char *)bytes + offset, .iov_len = rest < size ? rest : size};
        messages[count].msg_hdr = message;
        messages[count].msg_hdr.msg_iov = &vectors[count];
        messages[count].msg_hdr.msg_iovlen = 1;
    }
    int sent = sendmmsg(fd, messages, count, MSG_NOSIGNAL);
    if (sent < 0) return -errno;
    size_t total = 0;
    for (int i = 0; i < sent; i++) total += vectors[i].iov_len;
    return (long)total;
}

static void read_cmsg(struct cmsghdr *header, csocket_arrival *arrival) {
    const unsigned char *data = CMSG_DATA(header);
    size_t size = header->cmsg_len - CMSG_LEN(0);
    if (header->cmsg_level == SOL_UDP && header->cmsg_type == UDP_GRO && size >= sizeof(int)) {
        int value;
        memcpy(&value, data, sizeof value);
        if (value > 0 && value <= UINT16_MAX) arrival->segment_size = (uint16_t)value;
    } else if (header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_TOS && size >= 1) {
        arrival->ecn = data[0] & 3;
    } else if (header->cmsg_level == IPPROTO_IPV6 && header->cmsg_type == IPV6_TCLASS && size >= sizeof(int)) {
        int value;
        memcpy(&value, data, sizeof value);
        arrival->ecn = value & 3;
    } else if (header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_PKTINFO && size >= sizeof(struct in_pktinfo)) {
        struct in_pktinfo info;
        memcpy(&info, data, sizeof info);
        arrival->local.family = 4;
        memcpy(arrival->local.address, &info.ipi_addr, 4);
    } else if (header->cmsg_level == IPPROTO_IPV6 && header->cmsg_type == IPV6_PKTINFO && size >= sizeof(struct in6_pktinfo)) {
        struct in6_pktinfo info;
        memcpy(&info, data, sizeof info);
        arrival->local.family = 6;
        memcpy(arrival->local.address, &info.ipi6_addr, 16);
    }
}

static void from_sockaddr(const struct sockaddr_storage *from, csocket_endpoint *to) {
    memset(to, 0, sizeof *to);
    if (from->ss_family == AF_INET) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)from;
        to->family = 4;
        to->port = ntohs(v4->sin_port);
        memcpy(to->address, &v4->sin_addr, 4);
    } else if (from->ss_family == AF_INET6) {
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)from;
        to->family = 6;
        to->port = ntohs(v6->sin6_port);
        memcpy(to->address, &v6->sin6_addr, 16);
    }
}

int csocket_receive(int fd, void *buffer, size_t stride, int count, csocket_arrival *arrivals) {
    struct mmsghdr messages[CSOCKET_RECEIVE_MAX];
    struct iovec vectors[CSOCKET_RECEIVE_MAX];
    struct sockaddr_storage sources[CSOCKET_RECEIVE_MAX];
    union {
        char bytes[2 * CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct in6_pktinfo))];
        struct cmsghdr alignment;
    } controls[CSOCKET_RECEIVE_MAX];
    if (count > CSOCKET_RECEIVE_MAX) count = CSOCKET_RECEIVE_MAX;
    for (int i = 0; i < count; i++) {
        vectors[i] = (struct iovec){.iov_base = (char *)buffer + (size_t)i * stride, .iov_len = stride};
        messages[i].msg_hdr = (struct msghdr){
            .msg_name = &sources[i], .msg_namelen = sizeof sources[i], .msg_iov = &vectors[i], .msg_iovlen = 1,
            .msg_control = controls[i].bytes, .msg_controllen = sizeof controls[i].bytes};
    }
    int got = recvmmsg(fd, messages, (unsigned)count, MSG_DONTWAIT, NULL);
    if (got < 0) return -errno;
    for (int i = 0; i < got; i++) {
        csocket_arrival *arrival = &arrivals[i];
        memset(arrival, 0, sizeof *arrival);
        from_sockaddr(&sources[i], &arrival->source);
        arrival->length = messages[i].msg_len;
        struct msghdr *message = &messages[i].msg_hdr;
        for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) read_cmsg(header, arrival);
    }
    return got;
}

int csocket_resolve(const char *host, uint16_t port, csocket_endpoint *found, int capacity) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM};
    struct addrinfo *list = NULL;
    int status = getaddrinfo(host, NULL, &hints, &list);
    if (status != 0) return status < 0 ? status : -status;
    int count = 0;
    for (struct addrinfo *entry = list; entry && count < capacity; entry = entry->ai_next) {
        csocket_endpoint *endpoint = &found[count];
        memset(endpoint, 0, sizeof *endpoint);
        endpoint->port = port;
        if (entry->ai_family == AF_INET) {
            endpoint->family = 4;
            memcpy(endpoint->address, &((struct sockaddr_in *)entry->ai_addr)->sin_addr, 4);
        } else if (entry->ai_family == AF_INET6) {
            endpoint->family = 6;
            memcpy(endpoint->address, &((struct sockaddr_in6 *)entry->ai_addr)->sin6_addr, 16);
        } else {
            continue;
        }
        count++;
    }
    freeaddrinfo(list);
    return count;
}

const char *csocket_resolve_error(int status) { return gai_strerror(status); }

uint64_t csocket_boottime_nanoseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_BOOTTIME, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static uint64_t monotonic_nanoseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

uint64_t csocket_suspended_nanoseconds(void) {
    // Again if the thread was stopped in between, which is no suspension.
    for (int attempt = 0;; attempt++) {
        uint64_t before = monotonic_nanoseconds(), all = csocket_boottime_nanoseconds(), after = monotonic_nanoseconds();
        if (after - before < 1000000u || attempt == 100) return all > after ? all - after : 0;
    }
}

uint64_t csocket_wall_seconds(uint32_t *nanoseconds) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    *nanoseconds = (uint32_t)time.tv_nsec;
    return time.tv_sec < 0 ? 0 : (uint64_t)time.tv_sec;
}

void csocket_random(void *bytes, size_t length) {
    unsigned char *next = bytes;
    while (length > 0) {
        ssize_t count = getrandom(next, length, 0);
        if (count < 0) {
            if (errno == EINTR) continue;
            // A process without randomness must not make keys.
            abort();
        }
        next += count;
        length -= (size_t)count;
    }
}

void csocket_close(int fd) { close(fd); }
