import FoundationEssentials
import NIOCore

/// The channels of a configuration.
package enum AlertChannels {
    package static func make(_ settings: AlertSettings, group: any EventLoopGroup) -> [any AlertChannel] {
        var channels: [any AlertChannel] = []
        if let webhook = settings.webhook { channels.append(WebhookAlert(webhook, group: group)) }
        if let program = settings.exec { channels.append(ExecAlert(program: program)) }
        if let mail = settings.mail { channels.append(MailAlert(mail, group: group)) }
        return channels
    }

    /// What became of a test.
    package struct TestResult: Sendable, Equatable {
        package var channel: AlertChannelKind
        /// Nil if it was sent.
        package var fault: AlertFault?
        package var receipt: AlertReceipt

        package init(channel: AlertChannelKind, fault: AlertFault? = nil, receipt: AlertReceipt = AlertReceipt()) {
            self.channel = channel
            self.fault = fault
            self.receipt = receipt
        }
    }

    /// Sends an alert of event `test` by every channel, once, all at the same time. Returns when all are done, a minute later at most.
    package static func sendTest(_ settings: AlertSettings, group: any EventLoopGroup) async -> [TestResult] {
        await sendTest(make(settings, group: group))
    }

    package static func sendTest(_ channels: [any AlertChannel]) async -> [TestResult] {
        let notice = AlertNotice(CertificateAlert(.test, name: "test"), time: Date())
        let results = await withTaskGroup(of: TestResult.self) { group in
            for channel in channels {
                group.addTask {
                    let outcome = await channel.send(notice)
                    await channel.shutdown()
                    return switch outcome {
                    case .success(let receipt): TestResult(channel: channel.kind, receipt: receipt)
                    case .failure(let fault): TestResult(channel: channel.kind, fault: fault)
                    }
                }
            }
            return await group.reduce(into: []) { $0.append($1) }
        }
        return AlertChannelKind.allCases.compactMap { kind in results.first { $0.channel == kind } }
    }
}
