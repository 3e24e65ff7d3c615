import Glibc
import Inet
import TCPStack

/// What an application does with its end of a connection.
package struct ApplicationPlan: Sendable, Equatable {
    package enum Pace: Sendable, Equatable {
        /// As fast as the connection takes it.
        case free
        /// So much, then it waits for so much of the peer; the client begins.
        case turns(mine: Int, theirs: Int)
    }

    package enum Reading: Sendable, Equatable {
        case eager
        case slow(bytes: Int, every: Duration)
        /// After so many bytes, nothing for a while.
        case pause(after: Int, for: Duration)
        case never
    }

    package enum Ending: Sendable, Equatable {
        /// The write side is closed behind the last byte.
        case whenSent
        /// The peer has to close first.
        case whenInputCloses
        /// Both ways at once, so long after the beginning, whatever is on the way.
        case close(after: Duration)
        case abort(after: Duration)
    }

    package var bytes = 0
    package var pace = Pace.free
    package var reading = Reading.eager
    package var ending = Ending.whenSent
    /// Nagle's algorithm; only the client has it.
    package var coalesces = false

    package init(bytes: Int = 0) { self.bytes = bytes }

    /// Every byte has to arrive, both ways.
    package var isOrderly: Bool {
        switch ending {
        case .whenSent, .whenInputCloses: reading != .never
        case .close, .abort: false
        }
    }
}

/// One end of a connection, played by its plan.
package struct SimulatedApplication {
    package let plan: ApplicationPlan
    let isClient: Bool
    /// Bytes that the peer will send.
    let expected: Int
    /// Tells the patterns apart.
    let key: Int
    package internal(set) var id: ConnectionID?
    package internal(set) var sent = 0
    package internal(set) var received = 0
    package internal(set) var reason: CloseReason?
    /// The host has vanished or restarted.
    var isForgotten = false
    var begun = Instant(nanoseconds: 0)
    var lastProgress = Instant(nanoseconds: 0)
    private var inputIsClosed = false
    private var hasClosed = false
    private var readAgain = Instant(nanoseconds: 0)
    private var hasPaused = false
    /// When it wants to be called without an event.
    private(set) var wake: Instant?
    private(set) var fault: String?

    init(_ plan: ApplicationPlan, isClient: Bool, expected: Int, key: Int) {
        self.plan = plan
        self.isClient = isClient
        self.expected = expected
        self.key = key
    }

    package var summary: String {
        "\(plan.pace) \(plan.reading) \(plan.ending), sent \(sent) of \(plan.bytes), received \(received) of \(expected), "
            + "\(id.map { "\($0)" } ?? "not open"), \(reason.map { "\($0)" } ?? (isForgotten ? "forgotten" : "alive"))"
    }

    var isOver: Bool { reason != nil || isForgotten }
    /// Has sent and received everything.
    package var isComplete: Bool { sent == plan.bytes && received == expected }

    mutating func opened(_ id: ConnectionID, now: Instant) {
        self.id = id
        begun = now
        lastProgress = now
    }

    mutating func inputClosed() { inputIsClosed = true }

    mutating func closed(_ reason: CloseReason) { self.reason = reason }

    /// Reads, writes and closes what it may now.
    mutating func serve(_ stack: inout Stack, now: Instant, buffer: inout [UInt8]) {
        wake = nil
        guard let id, !isOver else { return }
        switch plan.ending {
        case .close(let after):
            if now - begun >= after { return stack.close(id, now: now) }
            wakeUp(begun + after)
        case .abort(let after):
            if now - begun >= after { return stack.abort(id, now: now) }
            wakeUp(begun + after)
        case .whenSent, .whenInputCloses: break
        }
        read(&stack, id, now: now, buffer: &buffer)
        write(&stack, id, now: now)
        let isCut = inputIsClosed && stack.readableBytes(id) == 0 && received < expected
        if !hasClosed, isCut || sent == plan.bytes && (plan.ending == .whenSent || inputIsClosed && plan.ending == .whenInputCloses) {
            hasClosed = true
            stack.closeWrite(id, now: now)
        }
    }

    private mutating func read(_ stack: inout Stack, _ id: ConnectionID, now: Instant, buffer: inout [UInt8]) {
        var budget = Int.max
        switch plan.reading {
        case .eager: break
        case .never: return
        case .slow(let bytes, let pause):
            guard stack.readableBytes(id) > 0 else { return }
            if now < readAgain { return wakeUp(readAgain) }
            budget = bytes
            readAgain = now + pause
            wakeUp(readAgain)
        case .pause(let after, let pause):
            if !hasPaused, received >= after {
                hasPaused = true
                readAgain = now + pause
            }
            if now < readAgain { return wakeUp(readAgain) }
            if !hasPaused { budget = after - received }
        }
        while budget > 0 {
            let limit = min(budget, buffer.count)
            let count = take(&stack, id, atMost: limit, now: now, buffer: &buffer)
            if count == 0 { break }
            if !Pattern.matches(buffer, count: count, key: Pattern.peer(of: key), at: received), fault == nil {
                fault = "a wrong byte behind \(received)"
            }
            received += count
            budget -= count
            lastProgress = now
        }
        if received > expected, fault == nil { fault = "\(received) bytes of \(expected)" }
        if case .pause(let after, _) = plan.reading, !hasPaused, received >= after { read(&stack, id, now: now, buffer: &buffer) }
    }

    /// Some applications let the stack hand over its memory.
    private func take(_ stack: inout Stack, _ id: ConnectionID, atMost limit: Int, now: Instant, buffer: inout [UInt8]) -> Int {
        let isWhole = limit == buffer.count && stack.readableBytes(id) <= limit
        var span = buffer.mutableSpan
        var bytes = span.mutableBytes
        if key & 4 != 0, isWhole {
            var block = (try? stack.take(id, now: now)) ?? nil
            return block?.read(into: &bytes) ?? 0
        }
        var part = bytes._mutatingExtracting(0..<limit)
        return (try? stack.read(id, into: &part, now: now)) ?? 0
    }

    private mutating func write(_ stack: inout Stack, _ id: ConnectionID, now: Instant) {
        var limit = plan.bytes
        if case .turns(let mine, let theirs) = plan.pace {
            limit = min(limit, (received / max(1, theirs) + (isClient ? 1 : 0)) * mine)
        }
        while sent < limit {
            let count = min(Pattern.longest, limit - sent)
            let accepted = Pattern.withBytes(key: key, at: sent, count: count) { bytes in
                // And some let it keep theirs.
                key & 2 == 0
                    ? (try? stack.write(id, bytes, now: now)) ?? 0
                    : (try? stack.write(id, shared: KeptBytes.shared(bytes), now: now)) ?? 0
            }
            sent += accepted
            if accepted > 0 { lastProgress = now }
            if accepted < count { break }
        }
    }

    private mutating func wakeUp(_ moment: Instant) { wake = min(wake ?? moment, moment) }
}

/// Bytes that are spoilt when nobody keeps them any more.
private final class KeptBytes {
    private let memory: UnsafeMutableRawBufferPointer

    private init(_ bytes: RawSpan) {
        memory = .allocate(byteCount: bytes.byteCount, alignment: 1)
        bytes.withUnsafeBytes { memory.copyMemory(from: $0) }
    }

    deinit {
        memory.initializeMemory(as: UInt8.self, repeating: 0xAA)
        memory.deallocate()
    }

    static func shared(_ bytes: RawSpan) -> SharedBytes {
        let kept = KeptBytes(bytes)
        return SharedBytes(UnsafeRawBufferPointer(kept.memory), owner: kept)
    }
}

/// The bytes that an application sends: a table read from another place for each key, so that comparing costs next to nothing.
enum Pattern {
    static let longest = 65_536
    private static let period = 65_521
    private static let table: [UInt8] = {
        let random = RandomSource.seeded(0x7061_7474)
        let bytes = (0..<period).map { _ in UInt8(truncatingIfNeeded: random.nextUInt64()) }
        return bytes + bytes + bytes.prefix(16)
    }()

    /// Keys come in pairs.
    static func peer(of key: Int) -> Int { key ^ 1 }

    private static func offset(_ key: Int, _ position: Int) -> Int { (key &* 40_503 &+ position) % period }

    static func withBytes<Result>(key: Int, at position: Int, count: Int, _ body: (RawSpan) -> Result) -> Result {
        let start = offset(key, position)
        return body(table.span.bytes.extracting(start..<(start + count)))
    }

    static func matches(_ buffer: [UInt8], count: Int, key: Int, at position: Int) -> Bool {
        var (done, position) = (0, position)
        while done < count {
            let start = offset(key, position)
            let part = min(count - done, period)
            let isEqual = table.withUnsafeBytes { table in
                buffer.withUnsafeBytes { buffer in
                    memcmp(table.baseAddress! + start, buffer.baseAddress! + done, part) == 0
                }
            }
            if !isEqual { return false }
            done += part
            position += part
        }
        return true
    }
}
