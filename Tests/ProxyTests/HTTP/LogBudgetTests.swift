import NIOCore
import Proxy
import Testing

@Suite struct LogBudgetTests {
    @Test("a flood writes 20 lines of a kind in a second, and the next line says how many were left out")
    func flood() {
        let budget = LogBudget()
        let start = NIODeadline.uptimeNanoseconds(5)
        let decisions = (0..<1000).map { _ in budget.take(.notFound, now: start) }
        #expect(decisions.prefix(LogBudget.linesPerSecond).allSatisfy { $0 == .write(omitted: 0) })
        #expect(decisions.dropFirst(LogBudget.linesPerSecond).allSatisfy { $0 == .omit })
        #expect(budget.take(.proxyError, now: start) == .write(omitted: 0))
        #expect(budget.take(.notFound, now: start + .milliseconds(999)) == .omit)
        #expect(budget.take(.notFound, now: start + .seconds(1)) == .write(omitted: 981))
        #expect(budget.take(.notFound, now: start + .seconds(1)) == .write(omitted: 0))
    }

    @Test("that there is load is written once a minute")
    func load() {
        let budget = LogBudget()
        let start = NIODeadline.uptimeNanoseconds(5)
        #expect(budget.take(.underLoad, now: start) == .write(omitted: 0))
        #expect((1..<60).allSatisfy { budget.take(.underLoad, now: start + .seconds($0)) == .omit })
        #expect(budget.take(.underLoad, now: start + .minutes(1)) == .write(omitted: 59))
    }
}
