// swift-tools-version: 6.2
import PackageDescription

/// Every module: Swift 6 mode, strict memory safety, no warning survives.
let settings: [SwiftSetting] = [
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableExperimentalFeature("Lifetimes"),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

/// Tests touch the kernel directly, so they are exempt from `unsafe` markers only.
/// (With public imports, Swift 6.3 finds "infinite recursion" in any subclass of `TimerNode`: hence the import rules here, too.)
let testSettings: [SwiftSetting] = [
    .treatAllWarnings(as: .error),
    .enableExperimentalFeature("Lifetimes"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

let package = Package(
    name: "apus",
    products: [
        .library(name: "Apus", targets: ["Apus"]),
        .executable(name: "apus", targets: ["ApusCommand"]),
    ],
    dependencies: [
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ],
    targets: [
        .target(name: "CLinux"),
        .target(name: "ApusPlatform", dependencies: ["CLinux"], swiftSettings: settings),
        .target(name: "COpenSSL", linkerSettings: [.linkedLibrary("ssl"), .linkedLibrary("crypto")]),
        .target(name: "CCares"),
        .target(
            name: "ApusTransport",
            dependencies: ["ApusPlatform", "CCares", "COpenSSL", .product(name: "DequeModule", package: "swift-collections")],
            swiftSettings: settings),
        // Runs out of descriptors, which a test process must not do to its other tests.
        .executableTarget(
            name: "ListenerFixture", dependencies: ["ApusTransport", "ApusPlatform"], path: "Tests/Support/ListenerFixture",
            swiftSettings: testSettings),
        .testTarget(
            name: "ApusTransportTests", dependencies: ["ApusTransport", "ApusPlatform", "ListenerFixture", "TestSupport"],
            swiftSettings: testSettings),
        .testTarget(name: "ApusPlatformTests", dependencies: ["ApusPlatform"], swiftSettings: testSettings),
        .target(name: "ApusBus", dependencies: ["ApusPlatform"], swiftSettings: settings),
        .target(name: "CSeccomp", linkerSettings: [.linkedLibrary("seccomp")]),
        .testTarget(
            name: "ApusBusTests", dependencies: ["ApusBus", "ApusCodec", "ApusPlatform", "FuzzTargets"], swiftSettings: testSettings),
        .target(
            name: "ApusSupervisor",
            dependencies: ["ApusPlatform", "ApusBus", "CSeccomp", .product(name: "Logging", package: "swift-log")],
            swiftSettings: settings),
        // Supervisors fork, which a multi-threaded test runner must not do: the tests drive this program instead.
        .executableTarget(
            name: "SupervisorFixture",
            dependencies: ["ApusSupervisor", "ApusPlatform", "ApusBus", .product(name: "Logging", package: "swift-log")],
            path: "Tests/Support/SupervisorFixture", swiftSettings: testSettings),
        .testTarget(
            name: "ApusSupervisorTests",
            dependencies: [
                "ApusSupervisor", "ApusPlatform", "ApusBus", "CSeccomp", "SupervisorFixture",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: testSettings),
        .target(name: "CZlib"),
        .target(name: "ApusCodec", dependencies: ["CZlib"], swiftSettings: settings),
        .testTarget(name: "ApusCodecTests", dependencies: ["ApusCodec"], swiftSettings: testSettings),
        .target(
            name: "Apus",
            dependencies: [
                "ApusCodec", "ApusTransport", "ApusBus", "ApusPlatform", "ApusSupervisor",
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: settings),
        // As a user's package would have it: what is not public is out of its sight.
        .target(name: "ExampleExtension", dependencies: ["Apus"], path: "Tests/Support/ExampleExtension", packageAccess: false),
        .testTarget(
            name: "ApusTests",
            dependencies: [
                "Apus", "ApusCodec", "ApusPlatform", "COpenSSL", "ExampleExtension", "TestSupport",
                .product(name: "Logging", package: "swift-log"),
            ],
            exclude: ["Golden"], swiftSettings: testSettings),
        .executableTarget(
            name: "DeflateFixture", dependencies: ["Apus", "ApusPlatform", .product(name: "Logging", package: "swift-log")],
            path: "Tests/Support/DeflateFixture", swiftSettings: testSettings),
        .executableTarget(
            name: "EchoFixture", dependencies: ["Apus"], path: "Tests/Support/EchoFixture", swiftSettings: testSettings),
        // Measures the bus alone, in two processes.
        .executableTarget(
            name: "BusCost", dependencies: ["ApusBus", "ApusCodec", "ApusPlatform"], path: "Tests/Support/BusCost",
            swiftSettings: testSettings),
        .executableTarget(
            name: "AutobahnClient", dependencies: ["Apus"], path: "Tests/Support/AutobahnClient", swiftSettings: testSettings),
        .executableTarget(
            name: "BusFixture", dependencies: ["Apus", "ApusPlatform"], path: "Tests/Support/BusFixture", swiftSettings: testSettings),
        .executableTarget(
            name: "SandboxFixture", dependencies: ["Apus", "CSeccomp"], path: "Tests/Support/SandboxFixture", swiftSettings: testSettings),
        // What a stranger's server does on default settings: no settings of ours, and Foundation.
        .executableTarget(
            name: "OrdinaryFixture", dependencies: ["Apus", .product(name: "Logging", package: "swift-log")],
            path: "Tests/Support/OrdinaryFixture"),
        .target(name: "CYAML"),
        .executableTarget(
            name: "RandomFixture", dependencies: ["Apus", "ApusPlatform", "COpenSSL"], path: "Tests/Support/RandomFixture"),
        .executableTarget(
            name: "ApusCommand",
            dependencies: [
                "Apus", "ApusPlatform", "CYAML", .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Histogram", package: "hdrhistogram-swift"), .product(name: "Logging", package: "swift-log"),
            ],
            resources: [.embedInCode("Demo/page.html")], swiftSettings: settings),
        .testTarget(name: "ApusCommandTests", dependencies: ["ApusCommand"], swiftSettings: testSettings),
        // What fuzzing checks: a module of its own, so that the corpus goes through it in every `swift test`.
        .target(
            name: "FuzzTargets",
            dependencies: ["Apus", "ApusBus", "ApusCodec", "ApusPlatform", .product(name: "Logging", package: "swift-log")],
            path: "Tests/Fuzz/Targets", swiftSettings: testSettings),
        .testTarget(name: "SimulationTests", dependencies: ["ApusCodec", "FuzzTargets"], swiftSettings: testSettings),
        .testTarget(name: "CorpusTests", dependencies: ["FuzzTargets"], path: "Tests/Fuzz/Replay", swiftSettings: testSettings),
        .target(name: "TestSupport", path: "Tests/Support/TestSupport", swiftSettings: testSettings),
        .executableTarget(
            name: "IdleClients", dependencies: ["TestSupport"], path: "Tests/Support/IdleClients", swiftSettings: testSettings),
        // The README's example, as a user's package would have it: no settings.
        .executableTarget(name: "ReadmeExample", dependencies: ["Apus"], path: "Tests/Support/ReadmeExample"),
        .testTarget(name: "IntegrationTests", dependencies: ["TestSupport", "BusCost", "BusFixture"], swiftSettings: testSettings),
        .testTarget(name: "Tidy", dependencies: ["TestSupport"], path: "Tests/Tidy", swiftSettings: testSettings),
    ]
)

// libFuzzer's runtime is there only when everything is built for it: see deploy/fuzz.
if Context.environment["APUS_FUZZ"] != nil {
    package.targets.append(
        .executableTarget(name: "ApusFuzz", dependencies: ["FuzzTargets"], path: "Tests/Fuzz/Driver", swiftSettings: testSettings)
    )
}
