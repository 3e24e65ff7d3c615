import FoundationEssentials
import Proxy
import Testing

@Suite struct CertificateAlertTests {
    private let alert = CertificateAlert(
        .expiring, name: "app.example.com", level: .eighth, notAfter: testNow, remaining: 90_000.7, lastFailure: "\"no\"")

    @Test("the JSON has every member; what has no value is null")
    func json() {
        let full = AlertNotice(alert, host: "gw", time: testNow - 90_000, id: "1")
        #expect(
            String(decoding: full.json, as: UTF8.self)
                == #"{"event":"expiring","host":"gw","id":"1","lastFailure":"\"no\"","level":"1/8","#
                + #""message":"Certificate of app.example.com expires in 1 d 1 h","name":"app.example.com","#
                + #""notAfter":"2027-01-15T08:00:00Z","remainingSeconds":90000,"time":"2027-01-14T07:00:00Z"}"#)
        let empty = AlertNotice(CertificateAlert(.missing, name: "a\nb"), host: "gw", time: testNow, id: "1")
        #expect(
            String(decoding: empty.json, as: UTF8.self)
                == #"{"event":"missing","host":"gw","id":"1","lastFailure":null,"level":null,"#
                + #""message":"Certificate not found a\\u{A}b","name":"a\\u{A}b","notAfter":null,"remainingSeconds":null,"#
                + #""time":"2027-01-15T08:00:00Z"}"#)
    }

    @Test("each event has its message, and a level that receivers see")
    func messages() {
        func text(_ event: CertificateAlert.Event) -> String {
            CertificateAlert(event, name: "a", notAfter: testNow, remaining: 7_200).message
        }
        #expect(
            CertificateAlert.Event.allCases.map(text) == [
                "Certificate of a expires in 2 h 0 min", "Certificate of a has expired",
                "Renewal of the certificate of a is overdue; it expires in 2 h 0 min", "Certificate not found a",
                "Certificate of a is good again for 2 h 0 min", "Test of the alerts: nothing has happened",
            ])
        #expect(CertificateAlert.Level.allCases.map(\.text) == ["1/4", "1/8", "1/24", "expired"])
        #expect(CertificateAlert.Level.quarter < .expired)
    }

    @Test("Slack's control characters are escaped: a name is no link and calls nobody")
    func slack() {
        let hostile = CertificateAlert(.missing, name: "<!channel>&<https://x|y>", lastFailure: "a & b")
        let notice = AlertNotice(hostile, host: "gw", time: testNow)
        #expect(
            WebhookAlert.slackText(notice)
                == "[gw] Certificate not found &lt;!channel&gt;&amp;&lt;https://x|y&gt;\nLast failure: a &amp; b")
    }

    @Test("what a program finds in its environment: nothing of ours, no control characters")
    func environment() {
        let hostile = CertificateAlert(.renewalOverdue, name: "a\nb\0c", notAfter: testNow, remaining: -5)
        let variables = ExecAlert.environment(AlertNotice(hostile, host: "gw", time: testNow, id: "1"))
        #expect(variables["KAKUREMICHI_EVENT"] == "renewal-overdue" && variables["KAKUREMICHI_NAME"] == "a\\u{A}b\\u{0}c")
        #expect(variables["KAKUREMICHI_REMAINING_SECONDS"] == "-5" && variables["KAKUREMICHI_LEVEL"] == "")
        #expect(variables["HOME"] == nil && variables.values.allSatisfy { $0.utf8.allSatisfy { $0 >= 0x20 } })
    }
}
