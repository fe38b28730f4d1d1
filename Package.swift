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
let testSettings: [SwiftSetting] = [
    .treatAllWarnings(as: .error),
    .enableExperimentalFeature("Lifetimes"),
]

let package = Package(
    name: "apus",
    dependencies: [
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0")
    ],
    targets: [
        .target(name: "CLinux"),
        .target(name: "ApusPlatform", dependencies: ["CLinux"], swiftSettings: settings),
        .target(
            name: "ApusTransport", dependencies: ["ApusPlatform", .product(name: "DequeModule", package: "swift-collections")],
            swiftSettings: settings),
        .testTarget(name: "ApusPlatformTests", dependencies: ["ApusPlatform"], swiftSettings: testSettings),
        .target(name: "ApusCodec", swiftSettings: settings),
        .testTarget(name: "ApusCodecTests", dependencies: ["ApusCodec"], swiftSettings: testSettings),
    ]
)
