import ApusCodec

/// A small HTML page that names a status.
struct StatusPage {
    let bytes: [UInt8]

    init(_ status: HTTPStatus, _ detail: String) {
        let title = status.reasonPhrase.isEmpty ? "\(status.code)" : "\(status)"
        let paragraph = detail.isEmpty ? "" : "<p>\(Self.escaped(detail))</p>"
        bytes = Array("<!doctype html><title>\(title)</title><h1>\(title)</h1>\(paragraph)\n".utf8)
    }

    /// The fields of a response with this page: `fields` with the page's `Content-Type`.
    func fields(_ fields: HTTPFields) -> HTTPFields {
        var fields = fields
        fields.remove("Content-Type")
        fields.appendChecked("Content-Type", "text/html; charset=utf-8")
        return fields
    }

    private static func escaped(_ text: String) -> String {
        var result = ""
        for character in text {
            switch character {
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "&": result += "&amp;"
            case "\"": result += "&quot;"
            default: result.append(character)
            }
        }
        return result
    }
}
