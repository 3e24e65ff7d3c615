#define _GNU_SOURCE
#include "BenchShim.h"

#include <arpa/inet.h>
#include <malloc.h>
#include <openssl/evp.h>
#include <poll.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// glibc lets a program define these; every allocation of Swift and of the libraries comes through them.
extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
static atomic_uint_fast64_t allocations;

void *malloc(size_t size) {
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_malloc(size);
}
void *calloc(size_t count, size_t size) {
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_calloc(count, size);
}
void *realloc(void *old, size_t size) {
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_realloc(old, size);
}
int posix_memalign(void **result, size_t alignment, size_t size) {
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    *result = __libc_memalign(alignment, size);
    return *result ? 0 : 12;
}
void *aligned_alloc(size_t alignment, size_t size) {
    atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
    return __libc_memalign(alignment, size);
}

uint64_t bench_allocations(void) { return atomic_load(&allocations); }

uint64_t bench_heap_bytes(void) {
    struct mallinfo2 now = mallinfo2();
    return now.uordblks + now.hblkhd;
}

void bench_print_by_line(void) { setvbuf(stdout, NULL, _IOLBF, 0); }

uint64_t bench_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t bench_processor_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t bench_process_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// Not from getrusage(2), which counts what the process was before it began this program.
uint64_t bench_peak_kilobytes(void) {
    char line[256];
    unsigned long kilobytes = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof line, file) && sscanf(line, "VmHWM: %lu", &kilobytes) != 1) continue;
    if (file) fclose(file);
    return kilobytes;
}

static unsigned char key[32];

static void make_nonce(unsigned char *nonce, uint64_t counter) {
    memset(nonce, 0, 4);
    memcpy(nonce + 4, &counter, 8);
}

uint64_t bench_seal(uint8_t *buffer, size_t size, int rounds) {
    unsigned char nonce[12];
    uint64_t start = bench_nanoseconds();
    for (int i = 0; i < rounds; i++) {
        make_nonce(nonce, (uint64_t)i);
        crypto_aead_chacha20poly1305_ietf_encrypt_detached(buffer, buffer + size, NULL, buffer, size, NULL, 0, NULL, nonce, key);
    }
    return bench_nanoseconds() - start;
}

uint64_t bench_open(uint8_t *work, uint8_t *sealed, size_t size, int rounds) {
    unsigned char nonce[12];
    make_nonce(nonce, 7);
    crypto_aead_chacha20poly1305_ietf_encrypt_detached(sealed, sealed + size, NULL, sealed, size, NULL, 0, NULL, nonce, key);
    uint64_t start = bench_nanoseconds();
    for (int i = 0; i < rounds; i++) {
        memcpy(work, sealed, size + 16);
        if (crypto_aead_chacha20poly1305_ietf_decrypt_detached(work, NULL, work, size, work + size, NULL, 0, nonce, key) != 0) return 0;
    }
    return bench_nanoseconds() - start;
}

uint64_t bench_x25519_sodium(int rounds) {
    unsigned char secret[32] = {1}, public_key[32], shared[32];
    crypto_scalarmult_base(public_key, secret);
    uint64_t start = bench_nanoseconds();
    for (int i = 0; i < rounds; i++) {
        secret[1] = (unsigned char)i;
        if (crypto_scalarmult(shared, secret, public_key) != 0) return 0;
    }
    return bench_nanoseconds() - start;
}

uint64_t bench_x25519_crypto(int rounds) {
    unsigned char secret[32] = {1}, public_key[32], shared[32];
    crypto_scalarmult_base(public_key, secret);
    EVP_PKEY *ours = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, secret, 32);
    EVP_PKEY *theirs = EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, public_key, 32);
    uint64_t start = bench_nanoseconds();
    for (int i = 0; i < rounds; i++) {
        size_t length = 32;
        EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(ours, NULL);
        int good = context && EVP_PKEY_derive_init(context) == 1 && EVP_PKEY_derive_set_peer(context, theirs) == 1 &&
                   EVP_PKEY_derive(context, shared, &length) == 1;
        EVP_PKEY_CTX_free(context);
        if (!good) return 0;
    }
    uint64_t spent = bench_nanoseconds() - start;
    EVP_PKEY_free(ours);
    EVP_PKEY_free(theirs);
    return spent;
}

enum { batch = 16, maximum_sources = 4096 };

uint64_t bench_flood(
    const char *address, uint16_t port, const uint8_t *messages, int count, int size, uint64_t rate, double seconds, int sources, int net) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, address, &to.sin_addr) != 1) return 0;
    static int sockets[maximum_sources];
    int used = sources > 0 ? (sources < maximum_sources ? sources : maximum_sources) : 1;
    for (int i = 0; i < used; i++) {
        sockets[i] = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
        struct sockaddr_in from = {.sin_family = AF_INET};
        from.sin_addr.s_addr = htonl(127u << 24 | (uint32_t)net << 16 | (uint32_t)(i / 250) << 8 | (uint32_t)(i % 250 + 1));
        if (sockets[i] < 0 || (sources > 0 && bind(sockets[i], (struct sockaddr *)&from, sizeof from) != 0)) {
            perror("flood");
            return 0;
        }
    }
    struct iovec parts[batch];
    struct mmsghdr headers[batch];
    memset(headers, 0, sizeof headers);
    uint64_t start = bench_nanoseconds(), sent = 0, tried = 0;
    while (1) {
        uint64_t spent = bench_nanoseconds() - start;
        if ((double)spent >= seconds * 1e9) break;
        uint64_t due = (uint64_t)((double)spent * (double)rate / 1e9);
        if (tried + batch > due) {
            struct timespec pause = {0, 200000};
            nanosleep(&pause, NULL);
            continue;
        }
        for (int i = 0; i < batch; i++) {
            parts[i].iov_base = (void *)(messages + (size_t)((tried + (uint64_t)i) % (uint64_t)count) * (size_t)size);
            parts[i].iov_len = (size_t)size;
            headers[i].msg_hdr = (struct msghdr){.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &parts[i], .msg_iovlen = 1};
        }
        int done = sendmmsg(sockets[(tried / batch) % (uint64_t)used], headers, batch, 0);
        if (done > 0) sent += (uint64_t)done;
        tried += batch;
    }
    for (int i = 0; i < used; i++) close(sockets[i]);
    return sent;
}

int bench_udp_connect(const char *address, uint16_t port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, address, &to.sin_addr) != 1) return -1;
    int descriptor = socket(AF_INET, SOCK_DGRAM, 0);
    if (descriptor >= 0 && connect(descriptor, (struct sockaddr *)&to, sizeof to) != 0) {
        close(descriptor);
        return -1;
    }
    return descriptor;
}

int bench_udp_send(int descriptor, const uint8_t *message, size_t size) { return send(descriptor, message, size, 0) == (ssize_t)size; }

int bench_udp_receive(int descriptor, uint8_t *message, size_t size, int milliseconds) {
    struct pollfd waiting = {.fd = descriptor, .events = POLLIN};
    if (poll(&waiting, 1, milliseconds) != 1) return -1;
    return (int)recv(descriptor, message, size, 0);
}

void bench_wait_until(uint64_t nanoseconds) {
    struct timespec until = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0) continue;
}

uint64_t bench_civil_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
