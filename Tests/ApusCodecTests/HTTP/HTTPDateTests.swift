import ApusCodec
import Testing

@Suite("RFC 9110 §5.6.7 dates")
struct DateTests {
    @Test(
        "a date is written and parsed",
        arguments: [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"), (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"), (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"), (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ])
    func both(seconds: Int, text: String) {
        #expect(String(decoding: HTTPDate.format(secondsSince1970: seconds), as: UTF8.self) == text)
        #expect(HTTPDate.parse(text) == seconds)
    }

    @Test("times outside of the years 0 to 9999 are clamped")
    func clamped() {
        for seconds in [253_402_300_800, Int.max] {
            #expect(HTTPDate.format(secondsSince1970: seconds).elementsEqual("Fri, 31 Dec 9999 23:59:59 GMT".utf8))
        }
        for seconds in [-62_167_219_201, Int.min] {
            #expect(HTTPDate.format(secondsSince1970: seconds).elementsEqual("Sat, 01 Jan 0000 00:00:00 GMT".utf8))
        }
    }

    @Test(
        "obsolete forms are parsed",
        arguments: [
            ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777), ("Sun Nov  6 08:49:37 1994", 784_111_777),
            ("Wed Nov 16 08:49:37 1994", 784_975_777), ("Saturday, 01-Jan-77 00:00:00 GMT", 220_924_800),
        ])
    func obsolete(text: String, seconds: Int) {
        #expect(HTTPDate.parse(text) == seconds)
    }

    @Test("a two-digit year more than 50 years ahead is in the past")
    func century() {
        #expect(HTTPDate.parse("Sunday, 06-Nov-94 08:49:37 GMT", currentYear: 2050) == 784_111_777 + 3_155_760_000)
        #expect(HTTPDate.parse("Sunday, 06-Nov-94 08:49:37 GMT", currentYear: 2043) == 784_111_777)
    }

    @Test(
        "invalid dates give nil",
        arguments: [
            "", "Sun", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 GMT ", "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 6 Nov 1994 08:49:37 GMT", "Sun, 31 Feb 1994 08:49:37 GMT", "Sun, 29 Feb 2023 08:49:37 GMT",
            "Sun, 06 Nox 1994 08:49:37 GMT",
            "Xxx, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 24:00:00 GMT", "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT", "1994-11-06T08:49:37Z", "Sun, +6 Nov 1994 08:49:37 GMT",
        ])
    func refuses(text: String) {
        #expect(HTTPDate.parse(text) == nil)
    }

    @Test("every day of 800 years is the successor of the day before")
    func everyDay() throws {
        for day in stride(from: -140_000, through: 140_000, by: 37) {
            let text = String(decoding: HTTPDate.format(secondsSince1970: day * 86_400 + 43_200), as: UTF8.self)
            #expect(HTTPDate.parse(text) == day * 86_400 + 43_200)
        }
    }
}
