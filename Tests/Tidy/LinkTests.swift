import TestSupport
import Testing

extension Tidy {
    @Suite("Links of the documentation")
    struct Links {
        /// A Markdown file without its code blocks.
        struct Page {
            /// From the package's root.
            let path: String
            private let lines: [Substring]

            init(path: String, _ text: String) {
                self.path = path
                var isCode = false
                lines = text.split(separator: "\n").filter { line in
                    let isFence = line.drop { $0 == " " }.hasPrefix("```")
                    if isFence { isCode.toggle() }
                    return !isCode && !isFence
                }
            }

            init(_ path: String) { self.init(path: path, Tidy.text(of: path)) }

            /// As GitHub and DocC make them of headings.
            var anchors: Set<String> {
                Set(
                    lines.filter { $0.hasPrefix("#") }.map { line in
                        let title = line.drop { $0 == "#" }.drop { $0 == " " }.lowercased()
                        return String(title.compactMap { $0 == " " ? "-" : $0.isLetter || $0.isNumber || "-_".contains($0) ? $0 : nil })
                    })
            }

            /// Targets of links, and paths in backquotes that begin with a folder of the package.
            func targets() throws -> [(target: String, isPath: Bool)] {
                let link = try Regex(#"\]\(([^)\s]+)\)|<(doc:[^>]+)>|`((?:Sources|Tests|deploy|\.ci)/[^\s`]*)[^`]*`"#)
                return lines.flatMap { $0.matches(of: link) }.compactMap { match in
                    if let path = match.output[3].substring { return (String(path), true) }
                    return (match.output[1].substring ?? match.output[2].substring).map { (String($0), false) }
                }
            }
        }

        /// What is wrong with a page's links; `pages` are those of its catalogue.
        static func broken(_ page: Page, pages: [Page]) throws -> [String] {
            let folder = page.path.split(separator: "/").dropLast().map { $0 + "/" }.joined()
            return try page.targets().compactMap { target, isPath -> String? in
                if target.hasPrefix("https://") { return nil }
                let parts = target.split(separator: "#", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
                let other: Page?
                if parts[0].hasPrefix("doc:") {
                    other = pages.first { $0.path.hasSuffix("/\(parts[0].dropFirst(4)).md") }
                } else if parts[0].isEmpty {
                    other = page
                } else {
                    let path = isPath ? parts[0] : folder + parts[0]
                    let isThere = Files.exists(Places.package + "/" + path)
                    other = isThere ? path.hasSuffix(".md") ? Page(path) : Page(path: path, "") : nil
                }
                guard let other, parts.count == 1 || other.anchors.contains(parts[1]) else { return "\(page.path): \(target)" }
                return nil
            }
        }

        @Test("a link, an anchor and a path in the README and the articles lead to what exists")
        func links() throws {
            let articles = Tidy.files(in: "Sources", ".md").map { Page($0) }
            #expect(articles.count >= 5)
            for page in [Page("README.md")] + articles { #expect(try Self.broken(page, pages: articles) == []) }
        }

        @Test("links that lead nowhere are found")
        func brokenLinks() throws {
            let page = Page(
                path: "Sources/Apus/Apus.docc/Page.md",
                """
                # Page
                ## One & two_three-4
                [a](Page.md) [b](Architecture.md#nowhere) [c](#one--two_three-4) [d](#one) <doc:Page> <doc:Nowhere>
                `Sources/Apus` `Sources/Nowhere` `deploy/test --filter X` `deploy/nothing now` [e](https://example.com) [f](../Worker)
                ```
                [g](Missing.md)
                ```
                """)
            let found = try Self.broken(page, pages: [page]).map { String($0.split(separator: " ")[1]) }
            #expect(found == ["Page.md", "Architecture.md#nowhere", "#one", "doc:Nowhere", "Sources/Nowhere", "deploy/nothing"])
        }
    }
}
