import ApusCodec
import ApusPlatform

/// The value of `Date`, formatted once a second.
struct DateCache {
    private var second = 0
    private var bytes: [UInt8] = []

    mutating func now() -> [UInt8] {
        let now = WallClock.seconds()
        if now != second { (second, bytes) = (now, HTTPDate.format(secondsSince1970: now)) }
        return bytes
    }
}
