// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .treatAllWarnings(as: .error),
]
/// The protocol cores also have to mark every unsafe expression.
let strictMemorySafe: [SwiftSetting] = strict + [.strictMemorySafety()]

let package = Package(
    name: "kakuremichi",
    products: [
        .executable(name: "kakuremichi", targets: ["kakuremichi"]),
        .library(name: "Noise", targets: ["Noise"]),
        .library(name: "WGUserspace", targets: ["WGUserspace"]),
        .library(name: "TCPStack", targets: ["TCPStack"]),
        .library(name: "NIOWireGuard", targets: ["NIOWireGuard"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-http2", from: "1.46.0"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-nio-extras", from: "1.35.2"),
        .package(url: "https://github.com/apple/swift-certificates", from: "1.21.1"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/apple/swift-asn1", from: "1.7.4"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
        // Only the tests use it: the oracle that the TOML reader is compared with.
        .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
    ],
    targets: [
        .systemLibrary(name: "CSodium", pkgConfig: "libsodium", providers: [.apt(["libsodium-dev"])]),
        .systemLibrary(name: "CCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
        .target(name: "CSocketShim"),
        .target(name: "Inet", swiftSettings: strictMemorySafe),
        .target(name: "Noise", dependencies: ["CSodium", "CCrypto", "Inet"], swiftSettings: strictMemorySafe),
        .target(name: "WGUserspace", dependencies: ["Noise", "Inet"], swiftSettings: strictMemorySafe),
        .target(name: "TCPStack", dependencies: ["Inet"], swiftSettings: strictMemorySafe),
        .target(name: "Vectors", dependencies: ["Noise", "WGUserspace", "Inet"], swiftSettings: strict),
        .target(
            name: "NIOWireGuard",
            dependencies: [
                "WGUserspace", "TCPStack", "Inet", "Noise", "CSocketShim",
                .product(name: "NIOConcurrencyHelpers", package: "swift-nio"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: strict),
        .target(
            name: "Proxy",
            dependencies: [
                "Inet", "Noise", "WGUserspace", "TCPStack", "NIOWireGuard", "Vectors",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOHTTP2", package: "swift-nio-http2"),
                .product(name: "NIOHPACK", package: "swift-nio-http2"),
                .product(name: "NIOTLS", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "NIOExtras", package: "swift-nio-extras"),
                .product(name: "X509", package: "swift-certificates"),
                .product(name: "SwiftASN1", package: "swift-asn1"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "CryptoExtras", package: "swift-crypto"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
            ],
            swiftSettings: strict),
        .executableTarget(name: "kakuremichi", dependencies: ["Proxy"], swiftSettings: strict),

        .executableTarget(
            name: "TunnelDial",
            dependencies: [
                "NIOWireGuard", "Inet", .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ],
            path: "Examples/TunnelDial", swiftSettings: strict),
        .executableTarget(
            name: "TunnelEchoUDP",
            dependencies: [
                "NIOWireGuard", .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ],
            path: "Examples/TunnelEchoUDP", swiftSettings: strict),
        .executableTarget(
            name: "TunnelListen",
            dependencies: [
                "NIOWireGuard", .product(name: "NIOCore", package: "swift-nio"), .product(name: "NIOPosix", package: "swift-nio"),
            ],
            path: "Examples/TunnelListen", swiftSettings: strict),

        // What `scripts/bench micro` and the floods of `scripts/bench` run.
        .target(
            name: "BenchShim", dependencies: ["CSodium", "CCrypto"], path: "Benchmarks/Shim", linkerSettings: [.linkedLibrary("ssl")]),
        .executableTarget(
            name: "bench",
            dependencies: [
                "BenchShim", "Inet", "Noise", "WGUserspace", "TCPStack", "NIOWireGuard", "Proxy", "TestSupport",
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ],
            path: "Benchmarks/Bench", swiftSettings: strict),

        // What is fuzzed; tests replay the corpora on it.
        .target(
            name: "FuzzTargets",
            dependencies: [
                "Inet", "Noise", "WGUserspace", "TCPStack", "Vectors", "Proxy", "TestSupport",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOHPACK", package: "swift-nio-http2"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "X509", package: "swift-certificates"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "AsyncHTTPClient", package: "async-http-client"),
            ],
            path: "Fuzz/Targets", swiftSettings: strict),
        .testTarget(name: "FuzzTests", dependencies: ["FuzzTargets"], swiftSettings: strict),

        .target(
            name: "TestSupport", dependencies: ["Inet", "Noise", "WGUserspace", "TCPStack"],
            path: "Tests/Support", swiftSettings: strict),
        .testTarget(name: "InetTests", dependencies: ["Inet", "TestSupport"], swiftSettings: strict),
        .testTarget(name: "NoiseTests", dependencies: ["Noise", "Inet", "TestSupport"], swiftSettings: strict),
        .testTarget(name: "WGUserspaceTests", dependencies: ["WGUserspace", "Noise", "Inet", "TestSupport"], swiftSettings: strict),
        .testTarget(name: "VectorsTests", dependencies: ["Vectors"], swiftSettings: strict),
        .testTarget(
            name: "TCPStackTests", dependencies: ["TCPStack", "Inet", "TestSupport"], exclude: ["Scripts"], swiftSettings: strict),
        .testTarget(
            name: "NIOWireGuardTests",
            dependencies: [
                "NIOWireGuard", "CSocketShim", "Inet", "Noise", "WGUserspace", "TCPStack", "TestSupport",
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOConcurrencyHelpers", package: "swift-nio"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
            ],
            swiftSettings: strict),
        .testTarget(
            name: "ProxyTests",
            dependencies: [
                "Proxy", "Inet", "Noise", "WGUserspace", "TCPStack", "NIOWireGuard", "Vectors", "FuzzTargets", "TestSupport", "TOMLKit",
                .product(name: "NIOConcurrencyHelpers", package: "swift-nio"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOEmbedded", package: "swift-nio"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "NIOHTTP2", package: "swift-nio-http2"),
                .product(name: "NIOHPACK", package: "swift-nio-http2"),
                .product(name: "NIOExtras", package: "swift-nio-extras"),
                .product(name: "X509", package: "swift-certificates"),
                .product(name: "SwiftASN1", package: "swift-asn1"),
                .product(name: "Crypto", package: "swift-crypto"),
                .product(name: "CryptoExtras", package: "swift-crypto"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            swiftSettings: strict),
        .testTarget(
            name: "SimulationTests", dependencies: ["NIOWireGuard", "Inet", "Noise", "WGUserspace", "TCPStack", "TestSupport"],
            swiftSettings: strict),
    ]
)

// The fuzzer's executable has no `main` of its own, so that only `scripts/fuzz` builds it.
if Context.environment["KAKUREMICHI_FUZZ"] != nil {
    package.targets.append(.executableTarget(name: "fuzz", dependencies: ["FuzzTargets"], path: "Fuzz/Driver", swiftSettings: strict))
}
