import ApusPlatform
import Testing

@Suite("Monotonic time")
struct MonotonicTimeTests {
    @Test(
        "durations are rounded up to milliseconds and saturate",
        arguments: [
            (Duration.zero, 0), (.nanoseconds(1), 1), (.milliseconds(1), 1), (.microseconds(1001), 2), (.seconds(3), 3000),
            (.seconds(-1), 0), (.milliseconds(1 << 31), 1 << 31), (.seconds(Int64.max), UInt64.max),
            (Duration(secondsComponent: .max, attosecondsComponent: 999_999_999_999_999_999), .max), (.seconds(Int64.min), 0),
        ] as [(Duration, UInt64)])
    func wholeMilliseconds(duration: Duration, expected: UInt64) {
        #expect(duration.wholeMilliseconds == expected)
        #expect((MonotonicTime(milliseconds: 1) + duration).milliseconds == (expected == .max ? .max : expected + 1))
    }
}
