import ArgumentParser
import Glibc
import Noise

struct KeysCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "keys",
        abstract: "Makes and shows WireGuard keys.",
        discussion: """
            Examples:
              kakuremichi keys                      a new pair, both keys on standard output
              kakuremichi keys wireguard.key        the public key of that file, which is made if it is missing
              kakuremichi keys --private            a new private key, like wg genkey
              kakuremichi keys --public < file      the public key of a private one, like wg pubkey
              kakuremichi keys --psk                a new preshared key, like wg genpsk

            A file is written with mode 0600, and an existing one is never written to.
            """)

    @Argument(help: ArgumentHelp("File of a private key.", valueName: "file"))
    var file: String?

    @Flag(name: .customLong("private"), help: "Prints a new private key.")
    var isPrivate = false

    @Flag(name: .customLong("public"), help: "Reads a private key from standard input and prints its public key.")
    var isPublic = false

    @Flag(help: "Prints a new preshared key.")
    var psk = false

    func validate() throws {
        guard [file != nil, isPrivate, isPublic, psk].filter({ $0 }).count <= 1 else {
            throw ValidationError("give only one of a file, --private, --public and --psk")
        }
    }

    func run() throws {
        let random = Startup.random
        if isPrivate { return print(PrivateKey.generate(using: random).base64ForFile()) }
        if psk { return print(PresharedKey.generate(using: random).base64ForFile()) }
        if isPublic {
            return print(try publicKey(of: try SystemFiles.read(STDIN_FILENO, path: "standard input").bytes, name: "standard input"))
        }
        guard let file else {
            let key = PrivateKey.generate(using: random)
            return print("PrivateKey = \(key.base64ForFile())\nPublicKey = \(key.publicKey)")
        }
        if SystemFiles.exists(file) {
            print(try publicKey(of: try SystemFiles.read(file).bytes, name: file))
        } else {
            print(try KeyFiles.generate(to: file, random: random))
        }
    }

    private func publicKey(of bytes: [UInt8], name: String) throws -> PublicKey {
        guard let key = KeyFiles.publicKey(ofContents: bytes) else {
            throw CommandFailure("\(LogText.escape(name)) does not hold a private key; \(KeyFiles.advice)")
        }
        return key
    }
}
