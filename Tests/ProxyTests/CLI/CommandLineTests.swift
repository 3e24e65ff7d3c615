import ArgumentParser
import Proxy
import Testing

@Suite struct CommandLineTests {
    private func parses(_ arguments: [String]) -> Bool { (try? KakuremichiCommand.parseAsRoot(arguments)) != nil }

    @Test(
        "the documented command lines are accepted",
        arguments: [
            "agent --wg agent.conf --target 127.0.0.1:8080 --listen-port 80 --state d",
            "gateway --wg g --route app.example.com=10.1.0.2 --route b.c=10.1.0.3:81 --https 127.0.0.1:8443 --https [::1]:8443 --http 127.0.0.1:8080 --state d --cert c --key k",
            "gateway --config gateway.toml --check --log-level debug --log-format json", "echo --wg f --listen-port 7",
            "dial --wg f 10.1.0.2:7",
            "agent --wg f --target t:1 --interface wg0", "wg", "wg show", "wg show wg0", "wg show all dump", "wg show interfaces",
            "wg showconf wg0", "wg set wg0 peer K allowed-ips -10.0.0.1/32 persistent-keepalive 25", "wg setconf wg0 f", "wg addconf wg0 f",
            "wg syncconf wg0 f", "wg forget-timestamp K --state d", "status", "status --json --state d", "status --connections",
            "status --connections --json --state d",
            "init --domain a.b --endpoint h:1 --out d", "keys", "keys f", "keys --private",
            "capture --out f",
            "capture --out - --filter 10.1.0.2 --filter 80 --state d --count 1 --duration 5m --max-size 64M --snaplen 96",
        ])
    func documented(line: String) { #expect(parses(line.split(separator: " ").map(String.init))) }

    @Test(
        "the original's flags are accepted with one dash or two, with blank or equals sign",
        arguments: [
            "-http-port=8080", "--http-port 8080", "-https-port 8443", "--wireguard-port=51820", "-wireguard-key-file=wireguard.key",
            "--wireguard-interface wg0", "-control-url=ws://x", "--api-key=k", "-tls-cert-file=c", "--tls-key-file k",
        ])
    func original(line: String) { #expect(parses(["gateway"] + line.split(separator: " ").map(String.init))) }

    @Test("lines to copy into a shell are words to it, whatever the domain and the paths are")
    func shell() {
        let plain = ShellText.start(domain: "app.example.com", gateway: "d/gateway.conf", agent: "d/agent.conf")
        #expect(plain.contains("kakuremichi gateway --wg d/gateway.conf --route app.example.com=10.1.0.2\n"))
        let start = ShellText.start(domain: "*.example.com", gateway: "my dir/g.conf", agent: "my dir/a.conf")
        #expect(start.contains("kakuremichi gateway --wg 'my dir/g.conf' --route '*.example.com'=10.1.0.2\n"))
        #expect(start.contains("kakuremichi agent --wg 'my dir/a.conf' "))
        let trust = ShellText.trust("/my dir/it's/internal-ca.pem")
        for command in ["--cacert ", "sudo cp ", "System.keychain ", "-n kakuremichi -i ", "NODE_EXTRA_CA_CERTS="] {
            #expect(trust.contains(command + #"'/my dir/it'\''s/internal-ca.pem'"#), "\(command)")
        }
        #expect(ShellText.trust("/s/internal-ca.pem").contains("curl --cacert /s/internal-ca.pem https"))
    }

    @Test(
        "what does not exist is refused",
        arguments: [
            "gateway --nope", "dial --wg f nowhere", "dial --wg f 10.1.0.2", "echo", "keys f --psk", "nope",
            "status --connections --metrics", "capture", "capture --out f --filter x", "capture --out f --duration 25h",
            "capture --out f --duration 0",
            "capture --out f --max-size 1", "capture --out f --max-size 99999999999999999999G", "capture --out f --snaplen 0",
            "capture --out f --count 0",
        ])
    func refused(line: String) { #expect(!parses(line.split(separator: " ").map(String.init))) }
}
