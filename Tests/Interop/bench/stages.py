"""From the stacks of `perf script` to stages of the work: which part of the program, of its libraries or of the kernel a sample fell into."""

import re
from typing import NamedTuple

AEAD, UDP, TCP, DEVICE, INTERFACE, COPIES = (
    "AEAD", "UDP system calls + kernel", "TCP stack", "WireGuard device", "tunnel interface", "checksum and copies")
NIO, TLS, HTTP, MEMORY, SOCKETS, WAITING, KERNEL, ENDS, OTHER = (
    "NIO", "TLS", "HTTP", "allocator and ARC", "TCP sockets + kernel", "scheduler, waiting, waking", "kernel, the rest", "ends of the transfer", "other")
STAGES = (AEAD, UDP, TCP, DEVICE, INTERFACE, COPIES, NIO, TLS, HTTP, MEMORY, SOCKETS, WAITING, KERNEL, ENDS, OTHER)

# By the innermost function alone.
INNERMOST = [(re.compile(pattern), stage) for pattern, stage in (
    (r"^crypto_aead_|^crypto_stream_|^crypto_onetimeauth", AEAD),
    (r"^(__)?(memcpy|memmove|memset|memcmp)|InternetChecksum", COPIES),
    (r"^(__libc_)?(malloc|calloc|realloc|free|cfree|memalign|posix_memalign|aligned_alloc)(@.*)?$|^_int_(malloc|free|realloc)|^malloc_|^unlink_chunk|"
     r"^tcache_|^sysmalloc|^systrim|^arena_get", MEMORY),
    (r"^_?swift_(retain|release|alloc|dealloc|slow|bridgeObject|unknownObject|isUniquely|weak|unowned|initStackObject|setDeallocating)|RefCount|"
     r"^swift::|WO[a-z]$", MEMORY),
    (r"^CNIOBoringSSL|^CCryptoBoringSSL", TLS),
)]
# By the library of the innermost function.
LIBRARIES = [("libsodium", AEAD), ("libcrypto", DEVICE)]
# By the module that a Swift function belongs to, from the inside out.
MODULES = {
    "TCPStack": TCP, "WGUserspace": DEVICE, "Noise": DEVICE, "NIOWireGuard": INTERFACE, "NIOCore": NIO, "NIOPosix": NIO,
    "NIOConcurrencyHelpers": NIO, "NIOEmbedded": NIO, "DequeModule": NIO, "NIOSSL": TLS, "NIOTLS": TLS, "NIOHTTP1": HTTP, "NIOExtras": HTTP,
    "Proxy": HTTP, "bench": ENDS,
}
C_FUNCTIONS = [(re.compile(pattern), stage) for pattern, stage in (
    (r"^c_nio_llhttp|^llhttp", HTTP), (r"^CNIO|^c_nio", NIO), (r"^shim_|^kakuremichi_", UDP))]
# System calls by what the kernel does below them; by their names only where that is not seen. SwiftNIO sends and receives datagrams
# with messages, and streams without.
KERNEL_FUNCTIONS = [[(re.compile(pattern), stage) for pattern, stage in patterns] for patterns in (
    [(r"^udp(v6)?_|^__udp|^udplite", UDP), (r"^tcp_|^inet_stream|^__tcp", SOCKETS),
     (r"epoll|^ep_|futex|eventfd|timerfd|^(__)?schedule$", WAITING)],
    [(r"sys_(sendm?msg|recvm?msg)|do_recvmmsg", UDP), (r"^[kx_0-9]+sys_(read|write|writev)", SOCKETS)])]
UDP_CALLS, SOCKET_CALLS = re.compile(r"^(__)?(sendm?msg|recvm?msg)$"), re.compile(r"^(__)?(read|write|writev|send|recv)$")


class Frame(NamedTuple):
    function: str
    library: str

    @property
    def is_kernel(self):
        return self.library.startswith("[")


class Sample(NamedTuple):
    pid: int
    time: float
    nanoseconds: int
    # The innermost first.
    frames: list


def samples(text):
    """Of `perf script -F pid,time,period,ip,sym,dso`."""
    for block in text.split("\n\n"):
        lines = block.strip("\n").split("\n")
        head = re.match(r"\s*(\d+)\s+([\d.]+):\s+(\d+)", lines[0])
        if not head:
            continue
        frames = []
        for line in lines[1:]:
            match = re.match(r"\s*[0-9a-f]+\s+(.*?)(?:\+0x[0-9a-f]+)? \((.*)\)$", line)
            if match:
                frames.append(Frame(match[1], match[2]))
        yield Sample(int(head[1]), float(head[2]), int(head[3]), frames)


def module(function):
    """The Swift module that a mangled name begins with."""
    match = re.match(r"^\$[sS](\d+)", function)
    if not match:
        return None
    start = match.end()
    return function[start:start + int(match[1])]


def stage(frames):
    if not frames:
        return OTHER
    if frames[0].is_kernel:
        return kernel_stage(frames)
    for name, result in LIBRARIES:
        if name in frames[0].library:
            return result
    for pattern, result in INNERMOST:
        if pattern.search(frames[0].function):
            return result
    for frame in frames:
        if frame.is_kernel:
            continue
        if UDP_CALLS.match(frame.function):
            return UDP
        if SOCKET_CALLS.match(frame.function):
            return SOCKETS
        for pattern, result in C_FUNCTIONS:
            if pattern.search(frame.function):
                return result
        if (result := MODULES.get(module(frame.function))) is not None:
            return result
    return OTHER


def kernel_stage(frames):
    """By the function nearest to the system call: loopback hands a packet on inside of the call that sent it."""
    names = [frame.function for frame in reversed(frames) if frame.is_kernel]
    for patterns in KERNEL_FUNCTIONS:
        for name in names:
            for pattern, result in patterns:
                if pattern.search(name):
                    return result
    return KERNEL


def by_stage(all_samples):
    """Nanoseconds by process and stage, and the seconds between the first sample and the last."""
    spent, times = {}, []
    for sample in all_samples:
        times.append(sample.time)
        stages = spent.setdefault(sample.pid, dict.fromkeys(STAGES, 0))
        stages[stage(sample.frames)] += sample.nanoseconds
    return spent, max(times) - min(times) if times else 0
