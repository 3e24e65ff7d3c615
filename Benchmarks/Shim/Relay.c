#define _GNU_SOURCE
#include "BenchShim.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// Datagrams that wait for their time, in order: all are as late.
enum { slots = 16384, slot_size = 2048, batch = 64 };

struct line {
    int from, to;
    uint8_t *bytes;
    uint16_t lengths[slots];
    uint64_t due[slots];
    uint32_t head, count;
    double loss;
    uint64_t passed, lost;
};

static uint64_t state;

static double draw(void) {
    state += 0x9E3779B97F4A7C15u;
    uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/// Takes what has come; remembers who has sent it, if asked.
static void take(struct line *line, uint64_t delay, struct sockaddr_in *sender) {
    struct iovec parts[batch];
    struct mmsghdr headers[batch];
    struct sockaddr_in names[batch];
    static uint8_t spare[slot_size];
    while (1) {
        for (int i = 0; i < batch; i++) {
            int has_room = line->count + (uint32_t)i < slots;
            uint8_t *place = has_room ? line->bytes + (size_t)((line->head + line->count + (uint32_t)i) % slots) * slot_size : spare;
            parts[i] = (struct iovec){place, slot_size};
            headers[i].msg_hdr = (struct msghdr){
                .msg_name = &names[i], .msg_namelen = sizeof names[i], .msg_iov = &parts[i], .msg_iovlen = 1};
        }
        int got = recvmmsg(line->from, headers, batch, MSG_DONTWAIT, NULL);
        if (got <= 0) return;
        uint64_t now = bench_nanoseconds();
        if (sender) *sender = names[got - 1];
        for (int i = 0; i < got; i++) {
            if (line->count == slots || (line->loss > 0 && draw() < line->loss)) {
                line->lost++;
                continue;
            }
            uint32_t place = (line->head + line->count) % slots;
            // One that was lost leaves its slot to the next.
            uint8_t *bytes = line->bytes + (size_t)place * slot_size;
            if (parts[i].iov_base != bytes) memmove(bytes, parts[i].iov_base, headers[i].msg_len);
            line->lengths[place] = (uint16_t)headers[i].msg_len;
            line->due[place] = now + delay;
            line->count++;
        }
        if (got < batch) return;
    }
}

static void give(struct line *line, const struct sockaddr_in *receiver) {
    struct iovec parts[batch];
    struct mmsghdr headers[batch];
    uint64_t now = bench_nanoseconds();
    while (line->count > 0 && line->due[line->head] <= now) {
        int ready = 0;
        while (ready < batch && (uint32_t)ready < line->count && line->due[(line->head + (uint32_t)ready) % slots] <= now) {
            uint32_t place = (line->head + (uint32_t)ready) % slots;
            parts[ready] = (struct iovec){line->bytes + (size_t)place * slot_size, line->lengths[place]};
            headers[ready].msg_hdr = (struct msghdr){
                .msg_name = (void *)receiver, .msg_namelen = receiver ? sizeof *receiver : 0, .msg_iov = &parts[ready], .msg_iovlen = 1};
            ready++;
        }
        int sent = sendmmsg(line->to, headers, (unsigned)ready, MSG_DONTWAIT);
        // A full socket, or nobody there: as on any other path, they are gone.
        if (sent < ready) line->lost += (uint64_t)(ready - (sent > 0 ? sent : 0));
        if (sent > 0) line->passed += (uint64_t)sent;
        line->head = (line->head + (uint32_t)ready) % slots;
        line->count -= (uint32_t)ready;
    }
}

static uint64_t next_due(const struct line *line) { return line->count > 0 ? line->due[line->head] : UINT64_MAX; }

int bench_relay(
    uint16_t front, uint16_t target, double loss, uint64_t delay, uint64_t seed, double seconds, uint64_t *passed, uint64_t *lost) {
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(front), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons(target), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in client = {0};
    int front_socket = socket(AF_INET, SOCK_DGRAM, 0), back_socket = socket(AF_INET, SOCK_DGRAM, 0);
    int size = 8 << 20;
    int sockets[] = {front_socket, back_socket};
    for (int i = 0; i < 2; i++) {
        setsockopt(sockets[i], SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
        setsockopt(sockets[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    }
    static struct line there_line, back_line;
    there_line = (struct line){.from = front_socket, .to = back_socket, .bytes = malloc((size_t)slots * slot_size)};
    back_line = (struct line){.from = back_socket, .to = front_socket, .bytes = malloc((size_t)slots * slot_size), .loss = loss};
    if (front_socket < 0 || back_socket < 0 || bind(front_socket, (struct sockaddr *)&here, sizeof here) != 0 ||
        connect(back_socket, (struct sockaddr *)&there, sizeof there) != 0 || !there_line.bytes || !back_line.bytes)
        return -1;
    state = seed;
    uint64_t end = bench_nanoseconds() + (uint64_t)(seconds * 1e9);
    while (1) {
        uint64_t now = bench_nanoseconds();
        if (now >= end) break;
        uint64_t due = next_due(&there_line) < next_due(&back_line) ? next_due(&there_line) : next_due(&back_line);
        if (due > end) due = end;
        uint64_t pause = due > now ? due - now : 0;
        struct timespec wait = {(time_t)(pause / 1000000000u), (long)(pause % 1000000000u)};
        struct pollfd waiting[2] = {{.fd = front_socket, .events = POLLIN}, {.fd = back_socket, .events = POLLIN}};
        ppoll(waiting, 2, &wait, NULL);
        take(&there_line, delay, &client);
        take(&back_line, delay, NULL);
        give(&there_line, NULL);
        if (client.sin_port) give(&back_line, &client);
    }
    *passed = back_line.passed;
    *lost = back_line.lost;
    close(front_socket);
    close(back_socket);
    free(there_line.bytes);
    free(back_line.bytes);
    return 0;
}
