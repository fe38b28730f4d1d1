/// Dates of HTTP fields (RFC 9110 §5.6.7): conversion between text and seconds since 1970, without
/// a clock or a time zone.
package enum HTTPDate {
    private static var monthNames: String { "JanFebMarAprMayJunJulAugSepOctNovDec" }
    /// 0000-01-01 00:00:00 and 9999-12-31 23:59:59.
    private static var firstSecond: Int { -62_167_219_200 }
    private static var lastSecond: Int { 253_402_300_799 }
    private static var dayNames: String { "SunMonTueWedThuFriSat" }

    /// An IMF-fixdate such as `Sun, 06 Nov 1994 08:49:37 GMT`: 29 bytes.
    ///
    /// - Parameter seconds: Seconds since 1970-01-01 00:00:00 UTC, without leap seconds. Times
    ///   outside of the years 0 to 9999, which a file may have, are clamped.
    package static func format(secondsSince1970 seconds: Int) -> [UInt8] {
        let (days, second) = floorDivision(min(max(seconds, firstSecond), lastSecond), 86_400)
        let (year, month, day) = civilDate(daysSince1970: days)
        var output: [UInt8] = []
        output.reserveCapacity(29)
        // 1970-01-01 was a Thursday, day 4 of a week that begins with Sunday as day 0.
        append(dayNames, at: floorDivision(days + 4, 7).remainder, to: &output)
        output.append(contentsOf: ", ".utf8)
        append(day, digits: 2, to: &output)
        output.append(ByteClass.space)
        append(monthNames, at: month - 1, to: &output)
        output.append(ByteClass.space)
        append(year, digits: 4, to: &output)
        output.append(ByteClass.space)
        append(second / 3600, digits: 2, to: &output)
        output.append(UInt8(ascii: ":"))
        append(second / 60 % 60, digits: 2, to: &output)
        output.append(UInt8(ascii: ":"))
        append(second % 60, digits: 2, to: &output)
        output.append(contentsOf: " GMT".utf8)
        return output
    }

    /// The date and time for log lines, without a zone: `1994-11-06T08:49:37` (RFC 3339).
    package static func formatTimestamp(secondsSince1970 seconds: Int) -> String {
        let (days, second) = floorDivision(seconds, 86_400)
        let (year, month, day) = civilDate(daysSince1970: days)
        var output: [UInt8] = []
        output.reserveCapacity(19)
        let parts = [
            (year, 4, "-"), (month, 2, "-"), (day, 2, "T"), (second / 3600, 2, ":"), (second / 60 % 60, 2, ":"), (second % 60, 2, ""),
        ]
        for (number, digits, separator) in parts {
            append(number, digits: digits, to: &output)
            output.append(contentsOf: separator.utf8)
        }
        return String(decoding: output, as: UTF8.self)
    }

    private static func append(_ names: String, at index: Int, to output: inout [UInt8]) {
        output.append(contentsOf: names.utf8.dropFirst(3 * index).prefix(3))
    }

    private static func append(_ number: Int, digits: Int, to output: inout [UInt8]) {
        var divisor = 1
        for _ in 1..<digits { divisor *= 10 }
        while divisor > 0 {
            output.append(0x30 + UInt8(number / divisor % 10))
            divisor /= 10
        }
    }

    /// Parses a date in one of the three forms that a recipient must accept: IMF-fixdate `Sun, 06
    /// Nov 1994 08:49:37 GMT`, RFC 850 `Sunday, 06-Nov-94 08:49:37 GMT`, asctime `Sun Nov  6
    /// 08:49:37 1994`.
    ///
    /// The name of the day is not compared with the date. Second 60 counts as the first second of
    /// the next minute.
    ///
    /// - Parameter currentYear: Resolves a two-digit year: one that appears to be more than 50
    ///   years in the future is in the past (RFC 9110 §5.6.7). The default is right until 2075 for
    ///   dates since 1976.
    /// - Returns: Seconds since 1970; nil if the text is not a date.
    package static func parse(_ text: String, currentYear: Int = 2025) -> Int? {
        var scanner = DateScanner(text)
        guard let nameLength = scanner.skipLetters() else { return nil }
        let fields: DateScanner.Fields?
        if scanner.skip(", ") {
            fields = nameLength == 3 ? scanner.fixdate() : scanner.rfc850(currentYear: currentYear)
        } else {
            fields = nameLength == 3 && scanner.skip(" ") ? scanner.asctime() : nil
        }
        guard let fields, scanner.isAtEnd, isValid(fields) else { return nil }
        let days = daysSince1970(year: fields.year, month: fields.month, day: fields.day)
        let seconds = days * 86_400 + fields.hour * 3600 + fields.minute * 60 + fields.second
        // A leap second at the end of 9999 would belong to a year of five digits.
        return seconds <= lastSecond ? seconds : nil
    }

    private static func isValid(_ fields: DateScanner.Fields) -> Bool {
        let isLeap = fields.year % 4 == 0 && (fields.year % 100 != 0 || fields.year % 400 == 0)
        let lastDay =
            switch fields.month {
            case 2: isLeap ? 29 : 28
            case 4, 6, 9, 11: 30
            default: 31
            }
        return (1...lastDay).contains(fields.day) && fields.hour < 24 && fields.minute < 60 && fields.second <= 60
    }

    /// Year, month 1–12 and day 1–31 in the Gregorian calendar, computed in 400-year eras from
    /// 0000-03-01.
    private static func civilDate(daysSince1970 days: Int) -> (year: Int, month: Int, day: Int) {
        let (era, dayOfEra) = floorDivision(days + 719_468, 146_097)
        let yearOfEra = (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let marchMonth = (5 * dayOfYear + 2) / 153
        let month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
        return (era * 400 + yearOfEra + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * marchMonth + 2) / 5 + 1)
    }

    private static func daysSince1970(year: Int, month: Int, day: Int) -> Int {
        let (era, yearOfEra) = floorDivision(month <= 2 ? year - 1 : year, 400)
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }

    private static func floorDivision(_ dividend: Int, _ divisor: Int) -> (quotient: Int, remainder: Int) {
        let (quotient, remainder) = dividend.quotientAndRemainder(dividingBy: divisor)
        return remainder < 0 ? (quotient - 1, remainder + divisor) : (quotient, remainder)
    }

    /// Scans the text of a date.
    private struct DateScanner {
        struct Fields {
            var year = 0
            var month = 0
            var day = 0
            var hour = 0
            var minute = 0
            var second = 0
        }

        private var rest: Substring.UTF8View

        init(_ text: String) { rest = Substring(text).utf8 }

        var isAtEnd: Bool { rest.isEmpty }

        /// Skips the name of a day.
        ///
        /// - Returns: Its length; nil without one.
        mutating func skipLetters() -> Int? {
            let name = rest.prefix { ByteClass.isLetter($0) }
            rest = rest.dropFirst(name.count)
            let isKnown =
                switch String(Substring(name)) {
                case "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday",
                    "Friday",
                    "Saturday":
                    true
                default: false
                }
            return isKnown ? name.count : nil
        }

        mutating func skip(_ text: String) -> Bool {
            guard rest.starts(with: text.utf8) else { return false }
            rest = rest.dropFirst(text.utf8.count)
            return true
        }

        private mutating func number(digits: Int) -> Int? {
            let text = rest.prefix(digits)
            guard text.count == digits, text.allSatisfy({ ByteClass.isDigit($0) }) else { return nil }
            rest = rest.dropFirst(digits)
            return text.reduce(0) { $0 * 10 + Int($1 - 0x30) }
        }

        private mutating func month() -> Int? {
            for month in 1...12 where skip(String(Substring(HTTPDate.monthNames.utf8.dropFirst(3 * month - 3).prefix(3)))) {
                return month
            }
            return nil
        }

        private mutating func time(_ fields: inout Fields) -> Bool {
            guard let hour = number(digits: 2), skip(":"), let minute = number(digits: 2), skip(":"),
                let second = number(digits: 2)
            else { return false }
            (fields.hour, fields.minute, fields.second) = (hour, minute, second)
            return true
        }

        mutating func fixdate() -> Fields? {
            var fields = Fields()
            guard let day = number(digits: 2), skip(" "), let month = month(), skip(" "), let year = number(digits: 4), skip(" "),
                time(&fields), skip(" GMT")
            else { return nil }
            (fields.year, fields.month, fields.day) = (year, month, day)
            return fields
        }

        mutating func rfc850(currentYear: Int) -> Fields? {
            var fields = Fields()
            guard let day = number(digits: 2), skip("-"), let month = month(), skip("-"), let twoDigits = number(digits: 2),
                skip(" "),
                time(&fields), skip(" GMT")
            else { return nil }
            var year = currentYear - currentYear % 100 + twoDigits
            if year > currentYear + 50 { year -= 100 }
            (fields.year, fields.month, fields.day) = (year, month, day)
            return fields
        }

        mutating func asctime() -> Fields? {
            var fields = Fields()
            guard let month = month(), skip(" "), let day = skip(" ") ? number(digits: 1) : number(digits: 2), skip(" "),
                time(&fields), skip(" "), let year = number(digits: 4)
            else { return nil }
            (fields.year, fields.month, fields.day) = (year, month, day)
            return fields
        }
    }
}
