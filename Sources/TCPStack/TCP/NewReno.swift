/// Additive increase by one segment for each window acknowledged.
/// Source: RFC 5681 §3.1 with byte counting (RFC 3465), which makes ACK division harmless.
package struct NewReno: Sendable {
    private var bytesAcknowledged = 0

    package init() {}

    package mutating func congestionAvoidance(acknowledged: Int, cwnd: Int, mss: Int) -> Int {
        bytesAcknowledged += acknowledged
        guard bytesAcknowledged >= cwnd else { return cwnd }
        bytesAcknowledged -= cwnd
        return cwnd + mss
    }

    /// - Returns: the new ssthresh.
    package mutating func reduce(flightSize: Int, mss: Int) -> Int {
        bytesAcknowledged = 0
        return max(flightSize / 2, 2 * mss)
    }
}
