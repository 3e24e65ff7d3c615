import TCPStack
import Testing

@Suite struct RTTEstimatorTests {
    @Test("it begins with one second and follows RFC 6298") func samples() {
        var estimator = RTTEstimator()
        #expect(estimator.rto == .seconds(1))
        estimator.sample(.milliseconds(100))
        #expect(estimator.srtt == .milliseconds(100) && estimator.rttvar == .milliseconds(50))
        #expect(estimator.rto == .milliseconds(300))
        estimator.sample(.milliseconds(180))
        #expect(estimator.srtt == .milliseconds(110))
        #expect(estimator.rttvar == .microseconds(57_500))
        #expect(estimator.rto == .milliseconds(340))
    }

    @Test("the timeout stays between 200 ms and 60 s, doubling in between") func bounds() {
        var estimator = RTTEstimator()
        for _ in 0..<100 { estimator.sample(.microseconds(50)) }
        #expect(estimator.rto >= .milliseconds(200) && estimator.rto < .milliseconds(201))
        for _ in 0..<40 { estimator.timedOut() }
        #expect(estimator.rto == .seconds(60))
        estimator.sample(.microseconds(50))
        #expect(estimator.rto < .milliseconds(201))
        estimator.sample(.seconds(1000))
        #expect(estimator.rto == .seconds(60))
    }

    @Test("unclear progress forgives the back-off a few times, a clear measurement always") func unclear() {
        var estimator = RTTEstimator()
        estimator.sample(.milliseconds(1))
        for _ in 0..<3 {
            estimator.timedOut()
            estimator.progressedUnclearly()
            #expect(estimator.backoff == 0)
        }
        estimator.timedOut()
        estimator.progressedUnclearly()
        #expect(estimator.backoff == 1)
        estimator.sample(.milliseconds(1))
        #expect(estimator.backoff == 0)
    }
}
