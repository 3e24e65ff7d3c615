import Inet
import TCPStack
import TestSupport
import Testing

/// Segments that somebody else could have sent.
@Suite struct HostileScriptTests {
}
