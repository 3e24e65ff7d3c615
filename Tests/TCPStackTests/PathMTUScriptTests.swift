import Inet
import TCPStack
import TestSupport
import Testing

/// Paths that take smaller packets than our interface: RFC 1191, RFC 8201, RFC 4821, RFC 8899.
@Suite struct PathMTUScriptTests {
    @Test("large segments that time out twice become small, and what passed before stays passed", arguments: [IPAddress.Family.v4, .v6])
    func blackHole(family: IPAddress.Family) throws {
        let path = Path(family: family, mtu: 1300)
        let id = try #require(path.script.establish(options: TCPScript.sack(1380), roundTrip: .milliseconds(20)))
        path.transfer(id, 200_000, within: .seconds(20))
        #expect(path.received == 200_000)
        #expect(path.sizes.contains(1420) && path.largestLate <= 1300)
    }

    @Test("a probe in the data finds the largest size again, and its loss is no congestion", arguments: [IPAddress.Family.v4, .v6])
    func search(family: IPAddress.Family) throws {
        let path = Path(family: family, mtu: 1390)
        let id = try #require(path.script.establish(options: TCPScript.sack(1380), roundTrip: .milliseconds(20)))
        path.transfer(id, 2_000_000, within: .seconds(60))
        #expect(path.received == 2_000_000)
        #expect((1375...1390).contains(path.largestLate))
        #expect(path.script.congestionWindow(id) > 50_000)
    }

    @Test("an outage looks like a black hole; the first probe of full size tells") func outage() throws {
        let path = Path(family: .v4, mtu: 1420)
        let id = try #require(path.script.establish(options: TCPScript.sack(1380), roundTrip: .milliseconds(20)))
        path.isDown = true
        path.transfer(id, 100_000, within: .seconds(2))
        path.isDown = false
        path.transfer(id, 400_000, within: .seconds(10))
        #expect(path.received >= 400_000)
        #expect(path.largestLate == 1420)
    }

    @Test("what one connection has found serves the next, for ten minutes") func cache() throws {
        let path = Path(family: .v4, mtu: 1300)
        let first = try #require(path.script.establish(options: TCPScript.sack(1380), roundTrip: .milliseconds(20)))
        path.transfer(first, 200_000, within: .seconds(20))
        let learnt = path.largestLate
        for (port, wait, expected) in [(UInt16(40_001), Duration.zero, learnt), (40_002, .seconds(700), 1420)] {
            path.script.advance(by: wait)
            _ = path.script.all()
            path.script.forgetISS()
            path.script.remotePort = port
            let next = try #require(path.script.establish(options: TCPScript.sack(1380)))
            path.script.write(next, filled(3000, with: 1))
            #expect(path.script.all().first?.packetLength == expected)
        }
    }

    @Test("a packet-too-big for one segment cuts what is too large, and only that goes again") func tooBig() throws {
        let script = TCPScript()
        let id = try #require(script.establish(options: TCPScript.sack(1380), roundTrip: .milliseconds(20)))
        script.write(id, filled(1380, with: 1))
        let quoted = try #require(script.nextPacket())
        script.write(id, filled(500, with: 2))
        #expect(script.next()?.text.count == 500)
        script.inject(icmpError(type: 3, code: 4, rest: 1300, quoting: Array(quoted.prefix(28)), from: script.remote, to: script.local))
        let again = script.all()
        #expect(again.map(\.seq) == [5001, 6261] && again.map(\.text.count) == [1260, 120])
    }

    /// A path that swallows what is too large for it. The peer takes the rest, reports holes, and acknowledges.
    private final class Path {
        let script: TCPScript
        let mtu: Int
        var isDown = false
        var sizes = Set<Int>()
        var largestLate = 0
        var received = 0
        private var got: [Range<UInt32>] = []
        private var next: UInt32 = 5001
        private var answers: [(at: Instant, ack: UInt32, options: TCPOptions)] = []

        init(family: IPAddress.Family, mtu: Int) {
            script = TCPScript(family: family)
            self.mtu = mtu
        }

        /// The application writes; the path takes 20 ms there and back.
        func transfer(_ id: ConnectionID, _ count: Int, within limit: Duration) {
            var left = count
            let end = script.now + limit
            let goal = received + count
            while script.now < end, received < goal || !answers.isEmpty {
                if left > 0 { left -= script.write(id, filled(min(left, 50_000), with: 1)) ?? 0 }
                script.advance(by: .milliseconds(1))
                for segment in script.all() where !segment.text.isEmpty { take(segment) }
                while let first = answers.first, first.at <= script.now {
                    answers.removeFirst()
                    script.send(.ack, seq: 1001, ack: first.ack, options: first.options)
                }
            }
        }

        private func take(_ segment: TCPScript.Segment) {
            sizes.insert(segment.packetLength)
            guard segment.packetLength <= mtu, !isDown else { return }
            largestLate = max(largestLate, segment.packetLength)
            let range = segment.seq..<(segment.seq + UInt32(segment.text.count))
            if range.upperBound > next { got.append(range) }
            got.sort { $0.lowerBound < $1.lowerBound }
            while let first = got.first, first.lowerBound <= next {
                if first.upperBound > next {
                    received += Int(first.upperBound - next)
                    next = first.upperBound
                }
                got.removeFirst()
            }
            var blocks = TCPOptions()
            if range.lowerBound > next {
                var merged = range
                for other in got where other.lowerBound <= merged.upperBound && other.upperBound >= merged.lowerBound {
                    merged = min(merged.lowerBound, other.lowerBound)..<max(merged.upperBound, other.upperBound)
                }
                blocks = TCPScript.reporting(merged)
            }
            answers.append((script.now + .milliseconds(20), next, blocks))
        }
    }
}
