import Inet
import TCPStack
import TestSupport
import Testing

/// Opening a connection actively.
@Suite struct DialScriptTests {
    @Test("a local address that is not ours and a remote one that cannot be are refused") func badAddresses() throws {
        let script = TCPScript()
        let elsewhere = SocketEndpoint(IPAddress(v4: 10, 9, 9, 9), port: 80)
        #expect(throws: StackError.addressNotAvailable) {
            try script.stack.connect(from: IPAddress(v4: 10, 1, 0, 77), to: elsewhere, now: script.now)
        }
        for remote in ["127.0.0.1:80", "224.0.0.1:80", "0.0.0.0:80", "10.1.0.1:80", "10.9.9.9:0"] {
            let endpoint = try #require(SocketEndpoint(remote))
            #expect(throws: StackError.invalidRemote) { try script.stack.connect(from: script.local, to: endpoint, now: script.now) }
        }
    }

    @Test("ports differ, and so do initial sequence numbers") func randomPorts() throws {
        let script = TCPScript()
        var ports: Set<UInt16> = []
        for _ in 0..<200 {
            let id = try script.stack.connect(from: script.local, to: SocketEndpoint(script.remote, port: 80), now: script.now)
            ports.insert(try #require(script.stack.endpoints(of: id)?.local.port))
        }
        #expect(ports.count == 200)
        #expect(Set(script.all().map(\.seq)).count == 200)
    }
}
