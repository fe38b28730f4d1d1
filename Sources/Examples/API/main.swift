// A JSON API: `swift run API 8080 site uploads`, with a directory of pages and one for uploads.
import Apus
import ApusFoundation

struct Item: Codable { var id: Int, name: String }
struct NewItem: Codable { var name: String }

var server = Server()
let arguments = CommandLine.arguments.dropFirst()
guard arguments.count == 3, let port = UInt16(arguments[1]) else { fatalError("usage: API PORT SITE UPLOADS") }
let (site, uploads) = (arguments[2], arguments[3])
server.workers = .count(1)  // the items are in one worker's memory
server.listen(on: .tcp("127.0.0.1", port: port))
server.fileDirectory = site
server.sandbox.allows = [.writing(uploads)]
let items = server.workerState { _ in [Item(id: 1, name: "swift")] }

server.get("/items") { request in try .json(request.worker[items]) }
server.get("/items/:id") { request in
    let id = try request.parameter("id", as: Int.self)
    guard let item = request.worker[items].first(where: { $0.id == id }) else { throw Rejection(.notFound, "no item \(id)") }
    return try .json(item)
}
server.post("/items") { request in
    let item = Item(id: request.worker[items].count + 1, name: try request.decode(NewItem.self).name)
    request.worker[items].append(item)
    request.worker.publish(Array(item.name.utf8), as: .text, to: "items")
    return try .json(item, .created, fields: ["Location": "/items/\(item.id)"])
}
server.get("/search") { request in try .json(request.worker[items].filter { $0.name.contains(try request.query("q") ?? "") }) }
server.get("/events") { _ in .stream(type: "text/event-stream") { $0.subscribe(to: "items") } }
server.get("/visits") { request in
    let visits = (request.cookies["visits"].flatMap { Int($0) } ?? 0) + 1
    let cookie = try SetCookie("visits", "\(visits)").fieldValue()
    return .text("\(visits)", fields: ["Set-Cookie": cookie, "X-Worker": "\(request.worker.identity.slot)"])
}
server.get("/old") { _ in .redirect("/items", permanent: true) }
server.get("/secret") { request in
    guard request.bearerToken == "swordfish" else { throw Rejection(.unauthorized, fields: ["WWW-Authenticate": "Bearer"]) }
    return .text("the secret")
}
server.put("/files/:name", body: .streamed(maxBytes: 8 << 30)) { try Upload(to: uploads + "/" + $0.parameter("name")) }
server.fallback { _ in .file("404.html", .notFound) }
server.runAndExit()
