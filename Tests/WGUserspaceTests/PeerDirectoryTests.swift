import Inet
import Noise
import Testing
import WGUserspace

@Suite struct PeerDirectoryTests {
    /// An interface of several loops, as its directory and its devices see it, and the same as one device.
    struct Loops {
        var directory: PeerDirectory
        var loops: [Loop]
        let whole: Loop
        let keys: [PublicKey]

        /// `Device` cannot be copied, and arrays want what can.
        final class Loop {
            var device: Device
            init(_ share: LoopShare) {
                var configuration = DeviceConfiguration()
                configuration.share = share
                device = Device(privateKey: .generate(using: .seeded(1)), configuration: configuration, random: .seeded(2))
            }

            func owner(of address: IPAddress) -> PublicKey? { device.peer(owning: address).flatMap { device.status(of: $0)?.publicKey } }
            func isElsewhere(_ address: IPAddress) -> Bool { device.isElsewhere(address) }
            var allowedIPs: [PublicKey: Set<IPPrefix>] {
                Dictionary(
                    uniqueKeysWithValues: device.peerIDs.compactMap { device.status(of: $0) }.map { ($0.publicKey, Set($0.allowedIPs)) })
            }
        }

        init(count: Int) {
            loops = (0..<count).map { Loop(LoopShare($0, of: count)) }
            whole = Loop(LoopShare())
            directory = PeerDirectory(loopCount: count, publicKey: whole.device.publicKey)
            keys = (0..<8).map { PrivateKey.generate(using: .seeded(100 + $0)).publicKey } + [whole.device.publicKey]
        }

        let now = Instant(nanoseconds: 1)

        private func place(_ placement: [AllowedIPsPlacement]) { for loop in loops { loop.device.place(placement) } }

        mutating func setPeer(_ key: PublicKey, _ prefixes: [IPPrefix]) {
            let configuration = PeerConfiguration(publicKey: key, allowedIPs: prefixes)
            whole.device.setPeer(configuration, now: now)
            let placement = directory.setPeer(key, allowedIPs: prefixes)
            loops[directory.loop(of: key)].device.setPeer(configuration, now: now)
            place(placement)
        }

        mutating func removePeer(_ key: PublicKey) {
            for loop in loops + [whole] { if let id = loop.device.peer(for: key) { loop.device.removePeer(id, now: now) } }
            place(directory.removePeer(key))
        }

        mutating func apply(_ request: UAPI.SetRequest) {
            let placement = directory.apply(request)
            for loop in loops + [whole] {
                let part = request.part(of: loop.device.configuration.share)
                if part.replacePeers {
                    for id in loop.device.peerIDs {
                        guard let key = loop.device.status(of: id)?.publicKey, !part.stayingPeers.contains(key) else { continue }
                        loop.device.removePeer(id, now: now)
                    }
                }
                for change in part.effectiveChanges { loop.device.apply(change, now: now) }
            }
            place(placement)
        }
    }

    @Test("whatever changes, every loop's table together is the table of one device", arguments: [UInt64](0..<20))
    func sameAsOne(seed: UInt64) throws {
        let random = RandomSource.seeded(seed)
        func pick(_ count: Int) -> Int { Int(random.next(below: UInt64(count))) }
        let blocks = try [
            "10.0.0.0/8", "10.1.0.0/16", "10.1.0.2/32", "10.1.0.3/32", "10.2.0.1/32", "fd00::/64", "fd00::2/128", "0.0.0.0/0",
        ]
        .map { try #require(IPPrefix($0)) }
        let addresses = try ["10.1.0.2", "10.1.0.3", "10.1.9.9", "10.2.0.1", "10.3.0.1", "192.0.2.1", "fd00::2", "fd00::9", "fd01::1"]
            .map { try #require(IPAddress($0)) }
        func some() -> [IPPrefix] { (0..<pick(4)).map { _ in blocks[pick(blocks.count)] } }
        var loops = Loops(count: 2 + pick(3))
        for _ in 0..<60 {
            let key = loops.keys[pick(loops.keys.count)]
            switch pick(4) {
            case 0: loops.removePeer(key)
            case 1, 2: loops.setPeer(key, some())
            default:
                let changes = (0..<pick(4)).map { _ in
                    let added = some()
                    return PeerChange(
                        publicKey: loops.keys[pick(loops.keys.count)], remove: pick(5) == 0, updateOnly: pick(3) == 0,
                        replaceAllowedIPs: pick(2) == 0, addedAllowedIPs: added,
                        removedAllowedIPs: some().filter { !added.contains($0) })
                }
                loops.apply(UAPI.SetRequest(replacePeers: pick(4) == 0, peers: changes))
            }
            let joined = loops.loops.reduce(into: [PublicKey: Set<IPPrefix>]()) { $0.merge($1.allowedIPs) { $0.union($1) } }
            #expect(joined == loops.whole.allowedIPs)
            for address in addresses {
                let owner = loops.whole.owner(of: address)
                let home = owner.map { loops.directory.loop(of: $0) }
                #expect(loops.directory.loop(owning: address) == home ?? 0)
                for (index, loop) in loops.loops.enumerated() {
                    #expect(loop.owner(of: address) == (index == home ? owner : nil))
                    #expect(loop.isElsewhere(address) == (home != nil && index != home))
                }
            }
        }
    }

    @Test("with one loop nothing is kept")
    func one() throws {
        var directory = PeerDirectory(loopCount: 1, publicKey: PrivateKey.generate(using: .seeded(1)).publicKey)
        let key = PrivateKey.generate(using: .seeded(2)).publicKey
        #expect(directory.setPeer(key, allowedIPs: [try #require(IPPrefix("10.1.0.2/32"))]).isEmpty)
        #expect(directory.loop(of: key) == 0 && directory.loop(owning: IPAddress(v4: 10, 1, 0, 2)) == 0)
    }
}
