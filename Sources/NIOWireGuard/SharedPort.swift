import CSocketShim
import Inet
import Logging
import NIOCore

/// The UDP port of an interface with several loops: each has a socket of each family, and the kernel finds the loop of a datagram.
///
/// The kernel numbers the sockets of a port in the order in which they were bound, and renumbers them when one is closed. So all are
/// bound anew, in the order of the loops, when the port changes and when one of them is lost. What comes to the wrong loop meanwhile is
/// handed over. Bound to the event loop of the first.
final class SharedPort: @unchecked Sendable {
    private let members: [UDPSockets]
    private let eventLoop: any EventLoop
    private let logger: Logger
    private let sharing: PortSharing
    private var port: UInt16 = 0
    private var mark: UInt32
    private var isClosed = false
    /// What is under way: changes and repairs come one after the other.
    private var work: EventLoopFuture<Void>

    /// - Parameter members: the sockets of the loops, in their order. At least two.
    init(_ members: [UDPSockets], mark: UInt32, sharing: PortSharing, logger: Logger) {
        self.members = members
        self.mark = mark
        self.sharing = sharing
        self.logger = logger
        eventLoop = members[0].eventLoop
        work = eventLoop.makeSucceededVoidFuture()
    }

    /// Gives each loop its sockets, which were bound in the order of the loops. They are closed if one loop cannot take them.
    func adopt(_ pairs: [DescriptorPair]) -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        pairs[0].tellMissing(to: logger)
        let prepared = zip(members, pairs).map { member, pair in member.eventLoop.flatSubmit { member.prepare(pair) } }
        let port = pairs[0].port
        return EventLoopFuture.whenAllComplete(prepared, on: eventLoop).flatMap { [self] results in
            let failure = results.lazy.compactMap { if case .failure(let error) = $0 { error } else { nil } }.first
            let ends = zip(members, results).map { member, result in
                member.eventLoop.flatSubmit {
                    let sockets = (try? result.get()) ?? []
                    return failure == nil ? member.install(sockets, port: port) : member.discard(sockets)
                }
            }
            return EventLoopFuture.andAllSucceed(ends, on: eventLoop).flatMapThrowing {
                if let failure { throw failure }
                self.port = port
            }
        }
    }

    /// As ``UDPSockets/rebind(port:)``.
    func rebind(port: UInt16) -> EventLoopFuture<Void> {
        inTurn { [self] in
            guard port != self.port || port == 0 else { return eventLoop.makeSucceededVoidFuture() }
            do throws(InterfaceError) {
                return adopt(try DescriptorPair.shared(members.count, port: port, mark: mark, sharing: sharing))
            } catch {
                return eventLoop.makeFailedFuture(error)
            }
        }
    }

    /// As ``UDPSockets/setMark(_:)``, on every loop or on none.
    func setMark(_ mark: UInt32) -> EventLoopFuture<Void> {
        inTurn { [self] in
            setEach(mark).flatMapError { [self] error in
                // What could be set can be set back.
                setEach(self.mark).flatMapThrowing { throw error }
            }.map { self.mark = mark }
        }
    }

    private func setEach(_ mark: UInt32) -> EventLoopFuture<Void> {
        let marked = members.map { member in
            member.eventLoop.submit { () throws -> Void in try member.setMark(mark) }
        }
        return EventLoopFuture.andAllSucceed(marked, on: eventLoop)
    }

    /// A loop has lost its socket of a family. From any loop.
    func restore(_ family: IPAddress.Family) {
        eventLoop.scheduleTask(in: UDPSockets.reopenPause) { [self] in
            inTurn { [self] in bindAgain(family) }.whenFailure { [self] _ in if !isClosed { restore(family) } }
        }
    }

    private func bindAgain(_ family: IPAddress.Family) -> EventLoopFuture<Void> {
        let counts = members.map { member in member.eventLoop.submit { member.has(family) } }
        return EventLoopFuture.whenAllSucceed(counts, on: eventLoop).flatMap { [self] has in
            // A change of port, or the repair of another loop's loss, may have come first.
            guard has.contains(false) else { return eventLoop.makeSucceededVoidFuture() }
            let vacated = members.map { member in member.eventLoop.flatSubmit { member.vacate(family) } }
            return EventLoopFuture.andAllComplete(vacated, on: eventLoop).flatMap { [self] in
                guard !isClosed,
                    let bound = DescriptorPair.reopenShared(members.count, family, port: port, mark: mark, sharing: sharing)
                else { return eventLoop.makeFailedFuture(TunnelError.interfaceClosed) }
                let adopted = zip(members, bound).map { member, descriptor in
                    member.eventLoop.flatSubmit { member.restore(descriptor, as: family) }
                }
                return EventLoopFuture.andAllSucceed(adopted, on: eventLoop)
            }
        }
    }

    /// Nothing is bound any more; the loops close their sockets themselves.
    func close() {
        eventLoop.preconditionInEventLoop()
        isClosed = true
    }

    private func inTurn(_ body: @escaping @Sendable () -> EventLoopFuture<Void>) -> EventLoopFuture<Void> {
        eventLoop.preconditionInEventLoop()
        let result = work.flatMapError { [eventLoop] _ in eventLoop.makeSucceededVoidFuture() }.flatMap { [self] in
            isClosed ? eventLoop.makeFailedFuture(TunnelError.interfaceClosed) : body()
        }
        work = result
        return result
    }
}
