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

/// Tests call the kernel directly, so they need no `unsafe` markers.
/// With public imports, Swift 6.3 finds "infinite recursion" in any subclass of `TimerNode`: hence
/// the import rules here, too.
let testSettings: [SwiftSetting] = [
    .treatAllWarnings(as: .error),
    .enableExperimentalFeature("Lifetimes"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]

extension Target.Dependency {
    static var argumentParser: Self { .product(name: "ArgumentParser", package: "swift-argument-parser") }
    static var deque: Self { .product(name: "DequeModule", package: "swift-collections") }
    static var histogram: Self { .product(name: "Histogram", package: "hdrhistogram-swift") }
    static var logging: Self { .product(name: "Logging", package: "swift-log") }
}

/// A C target of `Sources` that imports a library's headers.
func shim(_ name: String, links libraries: [String] = []) -> Target {
    .target(name: name, linkerSettings: libraries.map { .linkedLibrary($0) })
}

/// A module of `Sources`.
func module(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

/// A test target of `Tests`.
func tests(
    _ name: String, _ dependencies: [Target.Dependency], path: String? = nil, exclude: [String] = []
) -> Target {
    .testTarget(name: name, dependencies: dependencies, path: path, exclude: exclude, swiftSettings: testSettings)
}

/// A library of `Tests` that several test targets import.
func support(_ name: String, _ dependencies: [Target.Dependency] = [], path: String) -> Target {
    .target(name: name, dependencies: dependencies, path: path, swiftSettings: testSettings)
}

/// A program of `Tests/Support` that tests start as a process.
func fixture(
    _ name: String, _ dependencies: [Target.Dependency], settings: [SwiftSetting] = testSettings
) -> Target {
    .executableTarget(name: name, dependencies: dependencies, path: "Tests/Support/\(name)", swiftSettings: settings)
}

let shims: [Target] = [
    shim("CLinux"),
    shim("CZlib"),
    shim("CCares"),
    shim("COpenSSL", links: ["ssl", "crypto"]),
    shim("CSeccomp", links: ["seccomp"]),
    shim("CYAML"),
]

// Each module imports only modules above it; Tests/Tidy checks the imports.
let modules: [Target] = [
    module("ApusCodec", ["CZlib"]),
    module("ApusPlatform", ["CLinux"]),
    module("ApusTransport", ["ApusPlatform", "CCares", "COpenSSL", .deque]),
    module("ApusBus", ["ApusPlatform"]),
    module("ApusSupervisor", ["ApusPlatform", "ApusBus", "CSeccomp", .logging]),
    module("Apus", ["ApusCodec", "ApusTransport", "ApusBus", "ApusPlatform", "ApusSupervisor", .logging]),
    module("ApusFoundation", ["Apus"]),
    .executableTarget(
        name: "ApusCommand", dependencies: ["Apus", "ApusPlatform", "CYAML", .argumentParser, .histogram, .logging],
        resources: [.embedInCode("Demo/page.html")], swiftSettings: settings),
]

// Complete programs, built without the settings of this package, as a user would.
let examples: [Target] = [
    .executableTarget(name: "API", dependencies: ["Apus", "ApusFoundation"], path: "Sources/Examples/API")
]

let testSupport: [Target] = [
    support("TestSupport", path: "Tests/Support/TestSupport"),
    // What fuzzing checks: a module of its own, so that the corpus goes through it in every `swift test`.
    support(
        "FuzzTargets", ["Apus", "ApusBus", "ApusCodec", "ApusPlatform", "TestSupport", .logging], path: "Tests/Fuzz/Targets"),
    // Built like a module of a user's package: only what is public is visible.
    .target(name: "ExampleExtension", dependencies: ["Apus"], path: "Tests/Support/ExampleExtension", packageAccess: false),

    // Runs out of descriptors, which would break the other tests of a test process.
    fixture("ListenerFixture", ["ApusTransport", "ApusPlatform"]),
    // Supervisors fork, which a multi-threaded test runner must not do.
    fixture("SupervisorFixture", ["ApusSupervisor", "ApusPlatform", "ApusBus", .logging]),
    // Measures the bus alone, in two processes.
    fixture("BusCost", ["ApusBus", "ApusCodec", "ApusPlatform"]),
    fixture("BusFixture", ["Apus", "ApusPlatform"]),
    fixture("EchoFixture", ["Apus", "TestSupport"]),
    fixture("SandboxFixture", ["Apus", "CSeccomp"]),
    // Foundation's sources of randomness, too: a process with Foundation is another one to the sandbox than SandboxFixture.
    fixture("RandomFixture", ["Apus", "ApusPlatform", "COpenSSL"], settings: []),
    // Programs of users, built without the settings of this package.
    fixture("OrdinaryFixture", ["Apus", .logging], settings: []),
    fixture("ReadmeExample", ["Apus"], settings: []),
]

let testTargets: [Target] = [
    tests("ApusCodecTests", ["ApusCodec", "TestSupport"]),
    tests("ApusPlatformTests", ["ApusPlatform", "CLinux", "TestSupport"]),
    tests("ApusTransportTests", ["ApusTransport", "ApusPlatform", "ListenerFixture", "TestSupport"]),
    tests("ApusBusTests", ["ApusBus", "ApusCodec", "ApusPlatform", "FuzzTargets", "TestSupport"]),
    tests(
        "ApusSupervisorTests",
        ["ApusSupervisor", "ApusPlatform", "ApusBus", "CSeccomp", "SupervisorFixture", "TestSupport", .logging]),
    tests(
        "ApusTests", ["Apus", "ApusCodec", "ApusPlatform", "COpenSSL", "ExampleExtension", "TestSupport", .logging],
        exclude: ["Golden"]),
    tests("ApusCommandTests", ["ApusCommand"]),
    tests("SimulationTests", ["Apus", "ApusCodec", "ApusPlatform", "FuzzTargets", "TestSupport", .logging]),
    tests("CorpusTests", ["FuzzTargets"], path: "Tests/Fuzz/Replay"),
    tests("IntegrationTests", ["TestSupport", "BusCost", "BusFixture"]),
    tests("Tidy", ["TestSupport"], path: "Tests/Tidy"),
]

let package = Package(
    name: "apus",
    products: [
        .library(name: "Apus", targets: ["Apus"]),
        .library(name: "ApusFoundation", targets: ["ApusFoundation"]),
        .executable(name: "apus", targets: ["ApusCommand"]),
    ],
    dependencies: [
        .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    ],
    targets: shims + modules + examples + testSupport + testTargets
)

// libFuzzer's runtime exists only when everything is built for it: see Tests/Tools/fuzz.
if Context.environment["APUS_FUZZ"] != nil {
    package.targets.append(
        .executableTarget(name: "ApusFuzz", dependencies: ["FuzzTargets"], path: "Tests/Fuzz/Driver", swiftSettings: testSettings)
    )
}
