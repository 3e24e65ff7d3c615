#define _GNU_SOURCE
#include "BenchShim.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

// A new TLS connection for each request, with a whole handshake every time: no session is kept. Certificates are not looked at, so that
// the client is cheap.
enum { most_threads = 64 };

struct client {
    SSL_CTX *context;
    struct sockaddr_in end;
    const char *name;
    char request[512];
    uint64_t until;
    atomic_uint_fast64_t completed, failed;
};

static int ask(struct client *client) {
    int good = 0, on = 1, descriptor = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval limit = {.tv_sec = 5};
    SSL *tls = SSL_new(client->context);
    char answer[4096];
    // Without TCP_NODELAY the request would wait for the acknowledgement of what ended the handshake.
    if (descriptor >= 0 && tls && setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
        setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0 &&
        connect(descriptor, (struct sockaddr *)&client->end, sizeof client->end) == 0 && SSL_set_fd(tls, descriptor) == 1 &&
        SSL_set_tlsext_host_name(tls, client->name) == 1 && SSL_connect(tls) == 1 &&
        SSL_write(tls, client->request, (int)strlen(client->request)) > 0) {
        good = SSL_read(tls, answer, sizeof answer) >= 12 && memcmp(answer, "HTTP/1.1 200", 12) == 0;
        // To the end: the server closes.
        while (SSL_read(tls, answer, sizeof answer) > 0) continue;
    }
    SSL_free(tls);
    if (descriptor >= 0) close(descriptor);
    return good;
}

static void *ask_again(void *argument) {
    struct client *client = argument;
    while (bench_nanoseconds() < client->until) atomic_fetch_add(ask(client) ? &client->completed : &client->failed, 1);
    return NULL;
}

int bench_tls_connections(
    const char *address, uint16_t port, const char *name, const char *path, int threads, double seconds, uint64_t *completed,
    uint64_t *failed) {
    static struct client client;
    pthread_t running[most_threads];
    signal(SIGPIPE, SIG_IGN);
    client.context = SSL_CTX_new(TLS_client_method());
    client.end = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
    client.name = name;
    snprintf(client.request, sizeof client.request, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, name);
    if (!client.context || threads > most_threads || inet_pton(AF_INET, address, &client.end.sin_addr) != 1) return -1;
    SSL_CTX_set_session_cache_mode(client.context, SSL_SESS_CACHE_OFF);
    client.until = bench_nanoseconds() + (uint64_t)(seconds * 1e9);
    for (int i = 0; i < threads; i++) {
        if (pthread_create(&running[i], NULL, ask_again, &client) != 0) return -1;
    }
    for (int i = 0; i < threads; i++) pthread_join(running[i], NULL);
    *completed = atomic_load(&client.completed);
    *failed = atomic_load(&client.failed);
    SSL_CTX_free(client.context);
    return 0;
}
