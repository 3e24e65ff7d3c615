import Inet
import TestSupport
import Testing

/// A script fails when the stack does something else, and says what came.
@Suite struct PacketScriptLanguageTests {
    @Test(
        "what is not as written is a failure with its line and what came",
        arguments: [
            ("> S 1000\n< SA 5000 ack 1001", "other flags came, at 0.000000: RA 0:0 ack 1001"),
            ("> S 1000", "nobody expected, at 0.000000: RA"),
            ("> S 1000\n> S 2000\n+1 expect no event", "nobody expected"),
            ("> S 1000\n< RA 0 ack 1002", "ack is 1001"),
            ("> S 1000\n< RA 1 ack 1001", "seq is 0"),
            ("> R 1000\n< R 77", "line 3: < R 77\nnothing came"),
            ("listen\n> S 1000\n< SA 5000 win <=65534", "win is 65535"),
            ("listen\n> S 1000\n< SA 5000 ts *", "ts is missing"),
            ("listen\n> S 1000 ts\n< SA 5000 no ts", "ts is there"),
            ("listen\n> S 1000\n< SA 5000\n0.9 < SA 5000", "nothing came"),
            ("listen\n> S 1000\n< SA 5000\n1.1 < SA 5000", "came at 1.000000"),
            ("listen\n> S 1000\n< SA 5000\n1.1~0.05 < SA 5000", "came at 1.000000"),
            ("listen\n> S 1000\n< SA 5000\nexpect nothing for 2", "nobody expected, at 1.000000"),
            ("use established\n> A 2001:3001 ack 5001\n< A 5001 ack 1001 sack 2001-3002", "other SACK blocks came"),
            ("use established\n> A 2001:3001 ack 5001\n< A 5001 ack 1001 no sack", "other SACK blocks came"),
            ("use established\nwrite 1000\n< A 5001:6000", "its text ends at 6001"),
            ("use established\nwrite 1000\n< A 5001", "its text ends at 6001"),
            ("use established\nwrite 1000\n< A 5001:7001 x2", "nothing came"),
            ("use established\nwrite 1000\n< A 5001:6001 ce", "ECN is 0"),
            ("use established\n> PA 1001:1011 ack 5001\nexpect event closed reset", "no event came"),
            ("use established\n> PA 1001:1011 ack 5001\nexpect no event", "events: [\"readable\"]"),
            ("use established\n> FA 1001:1011 ack 5001\n< *\nexpect event closed reset", "the event is: input-closed"),
            ("use established\n> PA 1001:1011 ack 5001\nread 11", "10 bytes"),
            ("use established\n> PA 1001:1011 ack 5001 fill 9\nread 10", "wrong bytes"),
            ("use established\n> PA 1001:1011 ack 5001\nread 10 = 10x9", "wrong bytes"),
            ("use established\n> R 1001", "nobody expected the event: closed reset"),
            ("use established\nwrite 10 refused", "it was taken"),
            ("use established\nwrite 10 taken 9", "taken: 10"),
            ("use established\nexpect empty", "left: Counts(connections: 1"),
            ("use established\nexpect drops badChecksum 1", "it is 0"),
            ("use established\nexpect connections >=2", "it is 1"),
            ("use established\n1 expect nothing\n0.5 expect nothing", "the time is past: it is 1.000000"),
            ("listen\nlisten", "portInUse"),
            ("read 1", "there is no connection"),
        ])
    func wrong(script: String, message: String) throws {
        let script = try PacketScript("# wrong\n" + script)
        let failure = #expect(throws: PacketScriptRunner.Failure.self) { try PacketScriptRunner(script, family: .v4).run() }
        #expect(failure?.description.contains(message) == true, "\(failure?.description ?? "")")
        #expect(failure?.description.hasPrefix("wrong [v4]\n") == true)
    }

    @Test(
        "what cannot be understood is a failure, not a line passed over",
        arguments: [
            "frobnicate", "> Q 1", "> S", "> S 1000 win", "> S 1000 win x", "> S 1000 mss 70000000000", "> S 1000 color red",
            "< A 1:2 no color",
            "> A 1 sack 9-1", "> A 1 sack 7", "> S 1 opt 0", "> S 1 opt 000000", "> S 1 from nowhere", "> S 1 fragment 9:1",
            "> S 1 bad luck", "icmp too-big mtu 1300", "icmp trouble quoting 1", "set color red", "use force", "expect", "expect drops x 1",
            "peer port", "advance", "write", "< A 9..1",
        ])
    func nonsense(line: String) throws {
        let script = try PacketScript(line)
        // `> S` without a number is a segment with number 0, which nobody answers as expected.
        #expect(throws: PacketScriptRunner.Failure.self) { try PacketScriptRunner(script, family: .v4).run() }
    }

    @Test("lines that do not parse are refused at once", arguments: ["+x > S 1", "1..x < S 1", "1~ < S 1", "end", "repeat 3", "+1", "v4"])
    func malformed(line: String) { #expect(throws: PacketScript.Fault.self) { try PacketScript(line) } }

    @Test("repeats step their numbers, nest, and families and comments are heeded")
    func control() throws {
        let script = try PacketScript(
            """
            # title
            use established   # a comment
            repeat 2
                repeat 3
                    > A 1101+100:1151+100 ack 5001
                end
                skip
            end
            > A 1051:1052 ack 5001
            v4 < A 5001 ack 1001 sack 1051-1052,1301-1351,1201-1251,1101-1151
            v6 skip
            """)
        #expect(script.title == "title")
        for family in [IPAddress.Family.v4, .v6] { try PacketScriptRunner(script, family: family).run() }
    }
}
