#include "BenchShim.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

// The same conversation as TunnelBulk's over kernel sockets, as cheap as they can be had: one thread for a connection, blocking calls,
// one constant buffer to send from.
enum { piece = 128 * 1024, request_size = 9, most_streams = 64 };
static const char text[piece];

static int send_all(int descriptor, const void *bytes, size_t count) {
    for (size_t done = 0; done < count;) {
        ssize_t sent = send(descriptor, (const char *)bytes + done, count - done, MSG_NOSIGNAL);
        if (sent <= 0) return 0;
        done += (size_t)sent;
    }
    return 1;
}

static int receive_all(int descriptor, void *bytes, size_t count) {
    for (size_t done = 0; done < count;) {
        ssize_t received = recv(descriptor, (char *)bytes + done, count - done, 0);
        if (received <= 0) return 0;
        done += (size_t)received;
    }
    return 1;
}

static int source(int descriptor, uint64_t count) {
    while (count > 0) {
        size_t next = count < piece ? (size_t)count : piece;
        if (!send_all(descriptor, text, next)) return 0;
        count -= next;
    }
    return 1;
}

static int sink(int descriptor, uint64_t count) {
    char *buffer = malloc(piece);
    while (buffer && count > 0) {
        ssize_t received = recv(descriptor, buffer, count < piece ? (size_t)count : piece, 0);
        if (received <= 0) break;
        count -= (uint64_t)received;
    }
    free(buffer);
    return count == 0;
}

static void put_count(unsigned char *bytes, uint64_t count) {
    for (int i = 7; i >= 0; i--, count >>= 8) bytes[i] = (unsigned char)count;
}

static uint64_t get_count(const unsigned char *bytes) {
    uint64_t count = 0;
    for (int i = 0; i < 8; i++) count = count << 8 | bytes[i];
    return count;
}

static void *serve_one(void *argument) {
    int descriptor = (int)(intptr_t)argument;
    unsigned char request[request_size];
    if (receive_all(descriptor, request, request_size)) {
        if (request[0] == 'd') {
            source(descriptor, get_count(request + 1));
        } else if (sink(descriptor, get_count(request + 1))) {
            send_all(descriptor, request + 1, 8);
        }
        // Until the other side has hung up.
        recv(descriptor, request, 1, 0);
    }
    close(descriptor);
    return NULL;
}

static int fill(struct sockaddr_in *end, const char *address, uint16_t port) {
    *end = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    return inet_pton(AF_INET, address, &end->sin_addr) == 1;
}

int bench_kernel_serve(const char *address, uint16_t port) {
    struct sockaddr_in end;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (!fill(&end, address, port) || bind(listener, (struct sockaddr *)&end, sizeof end) != 0 || listen(listener, 64) != 0) return -1;
    while (1) {
        pthread_t thread;
        int descriptor = accept(listener, NULL, NULL);
        if (descriptor < 0) continue;
        if (pthread_create(&thread, NULL, serve_one, (void *)(intptr_t)descriptor) == 0) {
            pthread_detach(thread);
        } else {
            close(descriptor);
        }
    }
}

struct stream {
    pthread_t thread;
    int descriptor;
    char direction;
    uint64_t bytes;
    int good;
};

static void *transfer_one(void *argument) {
    struct stream *stream = argument;
    unsigned char request[request_size] = {(unsigned char)stream->direction};
    put_count(request + 1, stream->bytes);
    if (!send_all(stream->descriptor, request, request_size)) return NULL;
    if (stream->direction == 'd') {
        stream->good = sink(stream->descriptor, stream->bytes);
    } else {
        stream->good = source(stream->descriptor, stream->bytes) && receive_all(stream->descriptor, request, 8) &&
                       get_count(request) == stream->bytes;
    }
    return NULL;
}

uint64_t bench_kernel_transfer(const char *address, uint16_t port, char direction, int count, uint64_t bytes) {
    struct sockaddr_in end;
    static struct stream streams[most_streams];
    if (count > most_streams || !fill(&end, address, port)) return 0;
    for (int i = 0; i < count; i++) {
        streams[i] = (struct stream){.descriptor = socket(AF_INET, SOCK_STREAM, 0), .direction = direction, .bytes = bytes};
        if (connect(streams[i].descriptor, (struct sockaddr *)&end, sizeof end) != 0) return 0;
    }
    uint64_t start = bench_nanoseconds();
    for (int i = 0; i < count; i++) {
        if (pthread_create(&streams[i].thread, NULL, transfer_one, &streams[i]) != 0) return 0;
    }
    int good = 1;
    for (int i = 0; i < count; i++) {
        pthread_join(streams[i].thread, NULL);
        good = good && streams[i].good;
    }
    uint64_t spent = bench_nanoseconds() - start;
    for (int i = 0; i < count; i++) close(streams[i].descriptor);
    return good ? spent : 0;
}
