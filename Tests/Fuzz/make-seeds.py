#!/usr/bin/env python3
"""Writes the seeds of every fuzz target below Tests/Corpus: what the RFCs show, what clients send, the rows of RELIABILITY.
The first byte of most inputs is the target's options (Tests/Fuzz/Targets says which)."""
import os, struct, sys, zlib
root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "Corpus")
crlf = lambda text: text.replace("\n", "\r\n").encode("latin-1")

def write(target, name, data):
    os.makedirs(os.path.join(root, target), exist_ok=True)
    with open(os.path.join(root, target, "seed-" + name), "wb") as file:
        file.write(data)

curl = "GET /index.html HTTP/1.1\nHost: localhost:8080\nUser-Agent: curl/7.88.1\nAccept: */*\n\n"
chromium = """GET /chat?room=1 HTTP/1.1
Host: localhost:9000
Connection: Upgrade
Pragma: no-cache
Cache-Control: no-cache
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36
Upgrade: websocket
Origin: http://localhost:9000
Sec-WebSocket-Version: 13
Accept-Encoding: gzip, deflate, br, zstd
Accept-Language: en-US,en;q=0.9
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits
Sec-WebSocket-Protocol: chat, superchat

"""
websockets = """GET / HTTP/1.1
Host: 127.0.0.1:8765
Upgrade: websocket
Connection: Upgrade
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Sec-WebSocket-Version: 13
Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits
User-Agent: Python/3.11 websockets/15.0

"""
rfc6455 = """GET /chat HTTP/1.1
Host: server.example.com
Upgrade: websocket
Connection: keep-alive, UPGRADE
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Origin: http://server.example.com
Sec-WebSocket-Protocol: chat, superchat
Sec-WebSocket-Version: 13

"""
def head(line="GET / HTTP/1.1", *fields, host="Host: a"):
    return "\n".join([line, *([host] if host else []), *fields]) + "\n\n"

requests = {
    "curl": curl, "chromium": chromium, "websockets": websockets, "rfc6455": rfc6455, "empty-line-first": "\n" + curl,
    "pipelined": curl + head("HEAD /x HTTP/1.1") + head("GET / HTTP/1.0", host=None),
    "post": head("POST /form?a=1&b=%20+x HTTP/1.1", "Content-Length: 11", "Content-Type: application/x-www-form-urlencoded"),
    "chunked": head("POST / HTTP/1.1", "Transfer-Encoding: chunked", "Expect: 100-continue", "Trailer: A"),
    "length-and-encoding": head("POST / HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked"),
    "encoding-and-length": head("POST / HTTP/1.1", "Transfer-Encoding: chunked", "Content-Length: 5"),
    "two-lengths": head("POST / HTTP/1.1", "Content-Length: 5", "Content-Length: 5"),
    "length-list": head("POST / HTTP/1.1", "Content-Length: 5, 5"), "length-plus": head("POST / HTTP/1.1", "Content-Length: +5"),
    "length-huge": head("POST / HTTP/1.1", "Content-Length: 18446744073709551616"),
    "length-max": head("POST / HTTP/1.1", "Content-Length: 9223372036854775807"),
    "length-empty": head("POST / HTTP/1.1", "Content-Length:"), "length-zero": head("POST / HTTP/1.1", "Content-Length: 0"),
    "encoding-twice": head("POST / HTTP/1.1", "Transfer-Encoding: chunked, chunked"),
    "encoding-gzip": head("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked"),
    "encoding-bad": head("POST / HTTP/1.1", "Transfer-Encoding: , chunked"),
    "encoding-in-1.0": head("POST / HTTP/1.0", "Transfer-Encoding: chunked"),
    "control": head("GET / HTTP/1.1", "A: b\0c"), "fold": head("GET / HTTP/1.1", "A: b\n c"), "tab": head("GET / HTTP/1.1", "A:\tb\tc\t"),
    "space-before-colon": head("GET / HTTP/1.1", "A : b"), "empty-name": head("GET / HTTP/1.1", ": b"),
    "no-colon": head("GET / HTTP/1.1", "A"), "name-space": head("GET / HTTP/1.1", "A b"), "high-byte": head("GET / HTTP/1.1", "\xc4: b"),
    "value-high": head("GET / HTTP/1.1", "A: \xe4\xff"), "name-bad": head("GET / HTTP/1.1", "A(: b"), "empty-value": head("GET / HTTP/1.1", "A:"),
    "no-host": head(host=None), "two-hosts": head("GET / HTTP/1.1", "host: a"), "bad-host": head(host="Host: a b"),
    "host-port": head(host="Host: [::1]:65535"), "host-ipv4": head(host="Host: 127.0.0.1:"), "host-escape": head(host="Host: a%41.b"),
    "host-literal-bad": head(host="Host: [12345::]"), "host-literal-v4": head(host="Host: [::ffff:1.2.3.4]"),
    "host-literal-open": head(host="Host: [::1"), "host-port-big": head(host="Host: a:65536"), "host-empty": head(host="Host:"),
    "absolute": head("GET http://a/x?y HTTP/1.1"), "absolute-disagrees": head("GET http://b/ HTTP/1.1"),
    "absolute-port": head("GET https://A:443/ HTTP/1.1"), "absolute-no-path": head("GET ws://a HTTP/1.1"),
    "absolute-query": head("GET wss://a?x HTTP/1.1"), "scheme": head("GET ftp://a/ HTTP/1.1"), "no-scheme": head("GET a HTTP/1.1"),
    "absolute-bad": head("GET http://a b/ HTTP/1.1"), "absolute-empty": head("GET http:// HTTP/1.1"),
    "connect": head("CONNECT a:443 HTTP/1.1"), "connect-no-port": head("CONNECT a HTTP/1.1"), "options": head("OPTIONS * HTTP/1.1"),
    "asterisk-get": head("GET * HTTP/1.1"), "http09": "GET /\n\n", "http2": "PRI * HTTP/2.0\n\nSM\n\n", "http12": head("GET / HTTP/1.2"),
    "version-bad": head("GET / HTTX/1.1"), "version-short": head("GET / HTTP/1"), "version-0": head("GET / HTTP/0.9"),
    "no-method": head(" / HTTP/1.1"), "two-spaces": head("GET  / HTTP/1.1"), "method-bad": head("G(T / HTTP/1.1"),
    "method-long": head("G" * 33 + " / HTTP/1.1"), "method-longer": "G" * 9000, "two-empty-lines": "\n\n\n" + curl,
    "dots": head("GET /../etc/passwd HTTP/1.1"), "escaped-dots": head("GET /a/%2e%2e%2f HTTP/1.1"), "keep-alive": head("GET / HTTP/1.0", "Connection: keep-alive, x"),
    "close": head("GET / HTTP/1.1", "Connection: x, close"), "fields": head("GET / HTTP/1.1", *["A: b"] * 101),
    "line-feed": "GET / HTTP/1.1\x00", "upgrade-list": head("GET / HTTP/1.1", "Upgrade: h2c, WebSocket", "Connection: Upgrade"),
}
for name, text in requests.items():
    write("request-head", name, b"\x00" + crlf(text))
for name in ("curl", "chromium", "fields", "pipelined"):
    write("request-head", name + "-small", b"\x03" + crlf(requests[name]))
write("request-head", "bare-lf", b"\x00GET / HTTP/1.1\nHost: a\n\n")
write("request-head", "bare-cr", b"\x00GET / HTTP/1.1\rHost: a\r\r")
write("request-head", "cr-in-value", b"\x00GET / HTTP/1.1\r\nHost: a\r\nA: b\rc\r\n\r\n")
write("request-head", "tls", bytes.fromhex("001603010200010001fc0303"))
write("request-head", "long-target", b"\x00GET /" + b"a" * 9000 + b" HTTP/1.1\r\n")
write("request-head", "target-over", b"\x03GET /" + b"a" * 41 + b" HTTP/1.1\r\n\r\n")
write("request-head", "target-longer", b"\x03GET /" + b"a" * 99)
write("request-head", "head-over", b"\x03GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 200)

accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\n"
switching = "HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\nConnection: Upgrade\n" + accept
responses = {
    "switching": switching + "\n", "chat": switching + "Sec-WebSocket-Protocol: chat\n\n",
    "deflate": switching + "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\n\n",
    "protocol-unasked": switching + "Sec-WebSocket-Protocol: other\n\n",
    "protocol-twice": switching + "Sec-WebSocket-Protocol: chat\nSec-WebSocket-Protocol: chat\n\n",
    "accept-twice": switching + accept + "\n", "accept-wrong": switching.replace("s3p", "S3p") + "\n",
    "accept-missing": switching.replace(accept, "") + "\n", "upgrade-missing": switching.replace("Upgrade: websocket\n", "") + "\n",
    "upgrade-list": switching.replace("websocket", "h2c, websocket") + "\n", "connection-missing": switching.replace("Connection: Upgrade\n", "") + "\n",
    "switching-with-body": switching + "Content-Length: 5\n\n", "http10": switching.replace("1.1", "1.0") + "\n",
    "ok": "HTTP/1.1 200 OK\nContent-Length: 5\nContent-Type: text/plain\n\nhello", "zero": "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "chunked": "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nDate: Sun, 06 Nov 1994 08:49:37 GMT\n\n",
    "no-reason": "HTTP/1.1 200\n\n", "empty-reason": "HTTP/1.1 200 \n\n", "until-close": "HTTP/1.0 404 Not Found\n\n",
    "not-modified": "HTTP/1.1 304 Not Modified\nContent-Length: 9\n\n", "no-content": "HTTP/1.1 204 No Content\n\n",
    "interim": "HTTP/1.1 100 Continue\n\nHTTP/1.1 103 Early Hints\nLink: </a>\n\nHTTP/1.1 200 OK\n\n", "unknown": "HTTP/1.1 299 Odd\nConnection: close\n\n",
    "code-99": "HTTP/1.1 099 x\n\n", "code-four": "HTTP/1.1 2000 x\n\n", "code-letters": "HTTP/1.1 2x0 x\n\n", "http2": "HTTP/2.0 200 OK\n\n",
    "proxy": "HTTP/1.1 407 Proxy Authentication Required\nProxy-Authenticate: Basic\n\n", "not-http": "SSH-2.0-OpenSSH\n", "short": "HTTP/1.1\n",
    "icy": "ICY 200 OK\n\n", "connect-te": "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", "keep-alive": "HTTP/1.0 200 OK\nConnection: keep-alive\n\n",
    "upgrade": "HTTP/1.1 426 Upgrade Required\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\n", "last": "HTTP/1.1 999 \xe4\n\n",
}
for name, text in responses.items():
    write("response-head", name, b"\x04" + crlf(text))
    write("handshake", "answer-" + name, b"\x02" + crlf(text))
write("response-head", "over", b"\x03HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 40)
codes = [*range(100, 104), *range(200, 209), 226, *range(300, 309), *range(400, 419), *range(421, 427), 428, 429, 431, 451, *range(500, 509), 510, 511]
write("response-head", "codes", b"\x00" + b"".join(b"HTTP/1.1 %d x\r\n\r\n" % code for code in codes))

for name in ("chromium", "websockets", "rfc6455", "curl", "post", "http12", "no-host"):
    write("handshake", "request-" + name, b"\x00" + crlf(requests[name]))
base = "GET / HTTP/1.1\nHost: a\nUpgrade: websocket\nConnection: Upgrade\n"
key, version = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n", "Sec-WebSocket-Version: 13\n"
for name, text in {
    "version-8": base + key + "Sec-WebSocket-Version: 8\n", "version-none": base + key, "version-twice": base + key + version + version,
    "key-none": base + version, "key-twice": base + version + key + key, "key-short": base + version + "Sec-WebSocket-Key: dGhl\n",
    "key-bad": base + version + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ===\n", "http10": base.replace("1.1", "1.0") + key + version,
    "key-chars": base + version + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j*Q==\n",
    "post": base.replace("GET", "POST") + key + version, "body": base + key + version + "Content-Length: 3\n",
    "no-connection": base.replace("Connection: Upgrade\n", "") + key + version, "protocols-bad": base + key + version + "Sec-WebSocket-Protocol: a,,b\n",
    "protocols-twice": base + key + version + "Sec-WebSocket-Protocol: a, a\n", "protocols-fields": base + key + version + "Sec-WebSocket-Protocol: a\nSec-WebSocket-Protocol: b\n",
    "extensions-empty": base + key + version + "Sec-WebSocket-Extensions:\n", "origin-same": base + key + version + "Origin: http://a\n",
    "origin-other": base + key + version + "Origin: https://example.com\n", "origin-null": base + key + version + "Origin: null\n",
    "origin-port": base.replace("Host: a", "Host: example.org:8080") + key + version + "Origin: http://example.org:8080\n",
    "origin-odd": base + key + version + "Origin: ://\n", "origin-twice": base + key + version + "Origin: http://a\nOrigin: http://a\n",
    "origin-v6": base.replace("Host: a", "Host: [::1]") + key + version + "Origin: http://[::1]\n",
}.items():
    write("handshake", "request-" + name, b"\x00" + crlf(text + "\n"))
def application(*parts): return b"\x03" + b"\xff".join(part.encode("latin-1") for part in parts)
write("handshake", "application", application("example.com", "/chat?x=1", "http://a", "permessage-deflate", "chat", "superchat", "X-A", "b"))
write("handshake", "application-plain", application("a", "/", "", "", "", "", "A", ""))
for index, parts in enumerate([
    ("a\r\nX: y", "/", "", "", "", "", "A", "b"), ("a", "/ HTTP/1.1\r\nX: y", "", "", "", "", "A", "b"), ("a", "/", "o\r\n", "", "", "", "A", "b"),
    ("a", "/", "", "x\r\ny", "", "", "A", "b"), ("a", "/", "", "", "c d", "", "A", "b"), ("a", "/", "", "", "c", "c", "A", "b"),
    ("a", "/", "", "", "", "", "A\r\n", "b"), ("a", "/", "", "", "", "", "A", "b\r\nC: d"), ("a", "/", "", "", "", "", "Host", "b"),
    ("a", "/", "x", "", "", "", "Origin", "b"), ("a", "/", "", "", "", "", "Origin", "b"), ("a", "http://b/", "", "", "", "", "A", "b"), ("a:b", "/#", "", "", "", "", "A", "b")]):
    write("handshake", f"application-{index}", application(*parts))

chunks = {
    "wiki": "4\nWiki\n7;a=b\npedia i\nB\nn \n\nchunks.\n0\nA: b\n\n", "empty": "0\n\n", "upper": "A\n0123456789\n0\n\n", "zeros": "00000001\na\n0000\n\n",
    "empty-size": "\na\n", "negative": "-1\na\n", "prefix": "0x1\na\n", "space": "1 \na\n", "underscore": "1_0\na\n", "digits": "0" * 17 + "1\na\n",
    "max": "ffffffffffffffff\na", "top": "7fffffffffffffff\na", "unterminated": "1\nab", "extension": "1;" + "x" * 4100 + "\na\n", "extension-control": "1;a\x01\na\n",
    "trailer-fold": "0\nA: b\n c\n\n", "trailer-fields": "0\n" + "A: b\n" * 101 + "\n", "extension-tab": "1;\ta=\"b\"\na\n0\n\n", "over": "11\n" + "a" * 17 + "\n0\n\n",
    "trailing": "1\na\n0\n\nGET / HTTP/1.1\n", "trailer-long": "0\nA: " + "b" * 17000 + "\n\n", "padded": "1;x\na\n" * 20 + "0\n\n",
}
for name, text in chunks.items():
    write("chunked-body", name, b"\x01" + crlf(text))
    if len(text) < 200: write("chunked-body", name + "-small", b"\x11" + crlf(text))
write("chunked-body", "bare-lf", b"\x011\na\n0\n\n")
write("chunked-body", "bare-lf-extension", b"\x011;a\na\r\n0\r\n\r\n")
write("chunked-body", "bare-cr", b"\x011\ra\r0\r\r")
write("chunked-body", "data-cr", b"\x011\r\na\rb")
write("chunked-body", "counted", b"\xa1\x05helloGET")
write("chunked-body", "counted-over", b"\xb1\xffhello")
write("chunked-body", "counted-short", b"\xa1\xffhello")
write("chunked-body", "until-close", b"\xc1hello")
write("chunked-body", "until-close-over", b"\xd1" + b"hello" * 9)
write("chunked-body", "none", b"\xe1GET")

for index, (method, text) in enumerate([
    (0, "/"), (0, "/index.html?a=b&c"), (0, "/a/./b/../c/"), (0, "/../"), (0, "/a/../.."), (0, "/%2e%2e%2f"), (0, "/%2e%2e/"), (0, "/a/%2E./b"), (0, "/%252e%252e/"),
    (0, "/%c0%ae%c0%ae/"), (0, "/..\\"), (0, "/a%5cb"), (0, "/%00"), (0, "/%zz"), (0, "/%4"), (0, "/%"), (0, "//a//b"), (0, "//.."), (0, "/.a/..b/..."), (0, "/%c3%a4?%c3%a4=+%2B"),
    (0, "/a#b"), (0, "/a?b#c"), (0, "/a b"), (0, "/\x7f"), (0, "/\xe4"), (0, "/|{}\"<>^`"), (0, "*"), (1, "*"), (1, "/"), (2, "a:1"), (2, "[::1]:443"), (2, "a"), (2, "a:"), (2, "/"),
    (0, "http://a"), (0, "http://a/../"), (0, "http://a/%2e/b?c"), (0, "HTTPS://A:1/"), (0, "ws://[::1]/x"), (0, "wss://a?b"), (0, "ftp://a/"), (0, "a"), (0, "http:/a"), (0, "http://"),
    (0, "http://a@b/"), (0, "http://a\x01/"), (0, ""), (0, "/?&&a&=b&c=%4&d=%ff"), (0, "/a/b/c/../../../d"), (0, "/.."), (0, "/."), (0, "/a/.."), (0, "/%ff"), (0, "/%C3%A4/%E2%82%AC/%F0%9F%90%A6"), (3, "/" + "a/../" * 50)]):
    write("target", f"{index:02}", bytes([method]) + text.encode("latin-1"))

def frame(first, payload=b"", key=b"\x37\xfa\x21\x3d", masked=True):
    size = len(payload)
    flag = 0x80 if masked else 0
    header = bytes([first, flag | size]) if size < 126 else bytes([first, flag | 126]) + struct.pack(">H", size) if size < 65536 else bytes([first, flag | 127]) + struct.pack(">Q", size)
    if masked: payload = key + bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    return header + payload
for masked, option in ((True, 0), (False, 1)):
    side = "server" if masked else "client"
    f = lambda first, payload=b"": frame(first, payload, masked=masked)
    for name, data in {
        "hello": f(0x81, b"Hello"), "fragments": f(0x01, b"Hel") + f(0x80, b"lo"), "ping": f(0x89, b"Hello") + f(0x8a, b"Hello"), "binary-256": f(0x82, b"b" * 256),
        "interleaved": f(0x01, b"\xc3") + f(0x89) + f(0x00, b"\xa4") + f(0x80) + f(0x88, struct.pack(">H", 1000) + b"bye"), "close-empty": f(0x88) + f(0x81, b"late"),
        "close-one": f(0x88, b"\x03"), "close-999": f(0x88, b"\x03\xe7"), "close-1004": f(0x88, b"\x03\xec"), "close-1005": f(0x88, b"\x03\xed"), "close-1016": f(0x88, b"\x03\xf8"), "close-2999": f(0x88, b"\x0b\xb7"),
        "close-3000": f(0x88, b"\x0b\xb8"), "close-5000": f(0x88, b"\x13\x88"), "close-utf8": f(0x88, b"\x03\xe8\xff"), "close-long": f(0x88, b"\x03\xe8" + b"x" * 123), "wrong-mask": frame(0x81, b"x", masked=not masked),
        "size-125": f(0x82, b"x" * 125), "size-126": f(0x82, b"x" * 126), "ping-125": f(0x89, b"x" * 125), "ping-126": f(0x89, b"x" * 126), "ping-fragment": f(0x09), "rsv1": f(0xc1, b"x"), "rsv2": f(0xa1, b"x"), "rsv1-control": f(0xc9), "rsv1-continuation": f(0x41) + f(0xc0),
        "opcode-3": f(0x83), "opcode-11": f(0x8b), "continuation-first": f(0x80, b"x"), "text-inside": f(0x01, b"a") + f(0x81, b"b"), "overlong": f(0x81, b"\xc0\x80"), "surrogate": f(0x01, b"\xed\xa0\x80"), "cut-at-fin": f(0x81, b"\xe2\x82"),
        "non-minimal-16": bytes([0x82, 0xfe if masked else 126, 0, 5]), "non-minimal-64": bytes([0x82, 0xff if masked else 127]) + struct.pack(">Q", 65535), "top-bit": bytes([0x82, 0xff if masked else 127]) + struct.pack(">Q", 1 << 63), "huge": bytes([0x82, 0xff if masked else 127]) + struct.pack(">Q", 1 << 62),
        "many": f(0x81, b"a") * 40, "one-byte-fragments": f(0x02, b"a") + f(0x00, b"b") * 40 + f(0x80, b"c"), "euro": f(0x81, "κόσμε € 🐦".encode()),
    }.items():
        write("frames", f"{side}-{name}", bytes([option]) + data)
    write("frames", f"{side}-rsv-owned", bytes([option | 4]) + f(0xc1, b"x") + f(0x41, b"y") + f(0x80) + f(0x91, b"z"))
    write("frames", f"{side}-limit", bytes([option | 8]) + f(0x02, b"x" * 200) + f(0x80, b"y" * 101))
    write("frames", f"{side}-limit-0", bytes([option | 16]) + f(0x82) + f(0x82, b"x"))
    if masked: write("frames", f"{side}-65536", bytes([option | 24]) + f(0x82, b"x" * 65536))
    write("frames", f"{side}-zero-key", bytes([option]) + frame(0x82, b"x" * 40, key=b"\0\0\0\0", masked=masked))

texts = ["", "Hello", "κόσμε", "ä€🐦", "a" * 70, "a" * 31 + "€" + "b" * 40, "\U0010ffff\ue000\ud7ff", "\u0080\u07ff\u0800\uffff\U00010000", "aé" * 30]
for index, text in enumerate(texts): write("utf8", f"valid-{index}", bytes([index]) + text.encode())
for index, text in enumerate(["c080", "c1bf", "e08080", "e09fbf", "eda080", "edbfbf", "f0808080", "f08fbfbf", "f4908080", "f5808080", "ff", "80", "bf", "c3", "e282", "f09f90", "e28261", "c328", "616161616161616161f09f90", "cebae1bdb9cf83cebcceb5eda080656469746564", "f888808080", "61" * 40 + "c3", "61" * 33 + "e282ac" + "61" * 5 + "ff"]):
    write("utf8", f"invalid-{index:02}", bytes([index]) + bytes.fromhex(text))

for index, text in enumerate(["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun Nov 16 08:49:37 1994", "Thu, 29 Feb 2024 23:59:60 GMT", "Thu, 29 Feb 2023 00:00:00 GMT", "Mon, 31 Apr 2023 00:00:00 GMT", "Sat, 01 Jan 0000 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "Tuesday, 01-Jan-69 00:00:00 GMT", "Wed, 06 Nov 1994 24:00:00 GMT", "Sun", "Xxx, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nox 1994 08:49:37 GMT"]):
    write("fields", f"date-{index:02}", b"\x37" + text.encode())
write("fields", "append", b"\x00\x00a\xff\x08b, c\xff\x10text/html\xff\x19x \xff\x22y\xff\x27b\xff\x06\x0fA\xff")
write("fields", "own-names", b"\x00\x80X-Y\xff  v\t\xff\x84x-y\xffw\xff\x87X-y\xffW\xff\x86X-Y\xff")
write("fields", "invalid", b"\x00\x30a\xff\x38b\xff\x40c\xff\x00a\r\nb\xff\x05a\0\xff\x80\xc3\xa4\xffx\xff\x85\xff\xff")
write("fields", "tokens", b"\x00\x28keep-alive, Upgrade ,,x\xff\x28close\xff\x2fupgrade\xff\x2fCLOSE\xff\x2f\xff\x2fy\xff")
write("fields", "set-first", b"\x00\x00a\xff\x10b\xff\x08c\xff\x04d\xff\x1c1\xff\x1d2\xff\x06\x17b\xff")

hs = b"\x02\x00"
def frames(*actions): return b"".join(actions)
for name, data in {
    "echo": b"\x00" + hs + b"\x00\x00\x53\x01\x00\x01\x0f", "close": b"\x00" + hs + b"\x00\x00\x13\x05\x00\x0f\x00", "close-in-opened": b"\x00" + hs + b"\x05\x00\x13\x05\x00\x00",
    "terminate-in-opened": b"\x00" + hs + b"\x06\x00\x0f\x00", "pause": b"\x00" + hs + b"\x07\x00\x13\x00\x23\x00\x00\x09\x08\x00\x00\x00", "send-large": b"\x00" + hs + b"\xf2\x00\x0f\x00\xf5\x00\x0f\x00", "slow-consumer": b"\x01" + hs + b"\xcc\xf2\xf2\x00\x00\x09\x12\x00",
    "writable": b"\x00" + hs + b"\x09\x00\x12\x00\x09\x00\x00", "deadline": b"\x00" + hs + b"\x0a\x00\x0d\x00", "fragments-out": b"\x00" + hs + b"\x33\x00\x09\x33\x00\x09\x34\x00", "fragments-in": b"\x00\x02\x00\x01\x13\x08\x13\x0a\x13\x02\x00\x00\x00\x00",
    "reject": b"\x00\x02\xff\x00\x0f", "ping-pong": b"\x00" + hs + b"\x5b\x00\x13\x03\x13\x04\x00\x0f\x00", "http": b"\x00\x04\x00\x00\x14\x00\x00\x24\x00\x00\x34\x00\x00\x0f", "files": b"\x00\x44\x00\x54\x00\x64\x00\x0f\x00\xf5\x00\xf5\x00\x0f\x00", "bad-requests": b"\x00\x74\x00\x07\x84\x00\x07\x94\x00\x06\x07\xa4\x00",
    "later": b"\x00\x04\x05\x00\x04\x05\x00\x0a\x00\x0a\x00", "later-gone": b"\x00\x04\x05\x00\x16\x00\x0a\x00", "half-close": b"\x00" + hs + b"\x00\x06\x00\x0f\x00", "split-handshake": b"\x00\x52\x00\x41abcd" + hs, "two-peers": b"\x00" + hs + b"\x00\x07" + hs + b"\x00\x18\x13\x00\x1f\x02\x00",
    "own-client": b"\x00\x0b\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09\x01\x00\x00\x00\x09\x05\x00\x00\x00", "raw-server": b"\x00\x1b\x00\x0c\x00\x00\x13\x00\x00\x00\x00\x13\x05\x00\x00", "raw-server-refuses": b"\x00\x1b\x00\x1c\x00\x05\x00\x16\x00", "raw-chat": b"\x00\x5b\x00\x2c\x00\x00\x00\x13\x03\x00\x0f",
    "drain": b"\x00" + hs + b"\x00\x00\xff\x00\x00\x00\x13\x05\x00\x00", "stop": b"\x00" + hs + b"\x00\x00\xff\x01\x00\x00\x04\x00", "hasty-silence": b"\x02" + hs + b"\x00\x00\x0d\x0d\x0d\x0f", "hasty-http": b"\x02\x04\x00\x00\x0d\x0d\x84\x00\x0d", "hasty-close": b"\x02" + hs + b"\x05\x00\x0d\x0d", "hasty-drain": b"\x02" + hs + b"\x00\x00\xff\x00\x0d\x0d",
    "max-connections": b"\x08\x07\x07\x07\x00\x00\x06\x00\x00\x00", "echo-list": b"\x04" + hs + b"\x0e\x00\x0f", "scheduled": b"\x00" + hs + b"\x0d\x00\x02\x1d\x00\x0d\x05", "violation": b"\x00" + hs + b"\x00\x00\x01\x81\x01\x01\x05\x00\x0f", "many-pings-unread": b"\x00" + hs + b"\xf2\x00\x53\x03\x53\x03\x53\x03\x00\x0f\x00\xf5\x00",
    "client-data-with-answer": b"\x00\x1b\x00\x0c\x13\x00\x13\x00\x00\x02\x00\x01\x00",
}.items():
    write("connection", name, data)

def deflated(data, bits=15, level=6, flush=zlib.Z_SYNC_FLUSH):
    compressor = zlib.compressobj(level, zlib.DEFLATED, -bits)
    data = compressor.compress(data) + compressor.flush(flush)
    return data[:-4] if data.endswith(b"\0\0\xff\xff") else data
# RFC 7692 §7.2.3: one block, a stored block, BFINAL, two blocks, fragments; then what is wrong, and bombs.
for name, data in {
    "hello": bytes.fromhex("f248cdc9c90700"), "stored": bytes.fromhex("000500faff48656c6c6f00"), "final": bytes.fromhex("f348cdc9c9070000"), "two-blocks": bytes.fromhex("f248050000 00ffffcac9c90700".replace(" ", "")),
    "shared-window": bytes.fromhex("f200110000"), "empty": b"\0", "nothing": b"", "final-only": deflated(b"x" * 50, flush=zlib.Z_FINISH), "final-and-more": deflated(b"x" * 50, flush=zlib.Z_FINISH) + deflated(b"y" * 50),
    "bomb": deflated(b"\0" * 1_200_000, level=9), "zeros": deflated(b"\0" * 100_000, level=9), "garbage": b"\xff\xff\xff\xff", "bad-distance": bytes.fromhex("63000300"), "bad-block": b"\x07", "truncated": deflated(bytes(range(256)))[:40], "stored-bad": bytes.fromhex("0005000000"),
    "text": deflated(b"the quick brown fox jumps over the lazy dog " * 9), "random": deflated(bytes((index * 7919) >> 3 & 255 for index in range(600))), "small-window": deflated(b"abc" * 400, bits=9), "sync-twice": deflated(b"a") + b"\0\0\xff\xff" + deflated(b"b"),
}.items():
    write("permessage-deflate", "inflate-" + name, b"\x00\x00\x00" + data)
    write("permessage-deflate", "limit-" + name, b"\x05\x03\x00" + data)
for index, (server, client) in enumerate([(0, 0), (3, 3), (1, 0), (0, 2), (4, 4), (0x14, 0), (0x3f, 0x3f), (0xff, 0xff), (0x0b, 0x2b), (0xd7, 0x17)]):
    write("permessage-deflate", f"talk-{index}", bytes([2, server, client]) + b"\x00Hello\xff\x01Hello\xff\x40Hello again, hello\xff\x41Hello again\xff\xfeabc\xff\xffxyz0123456789\xff\x02\xff\x00\xff\x01")
    write("permessage-deflate", f"threshold-{index}", bytes([10, server, client]) + b"\x00short\xff\x40short, but in pieces, which cannot be known\xff\x7elong \xff\x01short")

offers = ["permessage-deflate", "permessage-deflate; client_max_window_bits", "permessage-deflate; client_max_window_bits=10; server_max_window_bits=10", "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=7", "permessage-deflate; server_max_window_bits=8", "permessage-deflate; server_max_window_bits=16", "permessage-deflate; server_max_window_bits", "permessage-deflate; server_max_window_bits=09", "permessage-deflate; server_max_window_bits=+9",
    "permessage-deflate; client_max_window_bits=8", "permessage-deflate; unknown", "permessage-deflate; server_no_context_takeover; server_no_context_takeover", "permessage-deflate; server_no_context_takeover=1", "permessage-deflate; server_max_window_bits=12, permessage-deflate",
    "permessage-deflate; unknown, permessage-deflate; client_max_window_bits", "x-webkit-deflate-frame", "x-idle, permessage-deflate", "x-idle; a=b; c, x-idle", "", ",, ,", "a;;b", "a; b=", 'a; b="c"', 'a; b="\\c"', 'a; b="', 'a; b=""', 'a; b="c d"', "a b", "a; b c", 'permessage-deflate; server_max_window_bits="10"', "permessage-deflate, permessage-deflate",
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; client_max_window_bits=9", ",".join("a" * (index + 1) for index in range(33)), "mux; max-channels=4; flow-control, deflate-stream", "a; b=c\\", 'a; b="c\\']
for index, text in enumerate(offers):
    write("extension-offers", f"offer-{index:02}", b"\x01\x03" + text.encode())
    write("extension-offers", f"answer-{index:02}", b"\x03\x03" + text.encode())
for index, option in enumerate([0, 4, 5, 2]):
    write("extension-offers", f"option-{index}", bytes([option, index * 21]) + b"permessage-deflate; client_max_window_bits, x-idle")

# What travels between workers: whole packets behind an even byte, steps of parts behind an odd one.
def packet(*records, sender=3, lost=0, process=1, receiver=1):
    return struct.pack("<BBHIII", 2, 0, sender, lost, process, receiver) + b"".join(records)
def record(kind, flags, small, large, body, count=None):
    return struct.pack("<BBHII", kind, flags, small, large, len(body) if count is None else count) + body
publication = record(1, 1, 3, 0xDEADBEEF, b"a/bHi")
signal = record(2, 0, 0x0203, 0xDEADBEEF, b"\7")
for name, data in {
    "empty": packet(), "gap": packet(lost=0x0A0B0C0D), "outsider": packet(publication, sender=0xFFFF, process=4711), "publication": packet(publication), "empty-publication": packet(record(1, 0, 0, 0, b"")),
    "signal": packet(signal), "part": packet(record(3, 0, 0, 0x01020304, b"\x09\x08")), "last-part": packet(record(3, 1, 0, 70000, publication)), "many": packet(publication, signal, record(3, 0, 0, 0, b"x" * 40), lost=2),
    "long-topic": packet(record(1, 0, 300, 7, b"t" * 300 + b"p")), "topic-longer": packet(record(1, 0, 9, 7, b"short")), "count-lies": packet(record(2, 0, 0, 0, b"x", count=0xFFFFFFFF)), "count-short": packet(record(1, 1, 3, 0, b"a/bHi", count=3)),
    "unknown-kind": packet(record(4, 0, 0, 0, b"")), "version": b"\1" + packet(publication)[1:], "cut-header": packet()[:9], "cut-record": packet(publication)[:-3], "trailing": packet(publication) + b"\1", "flags": packet(record(1, 0xFF, 1, 0, b"ab")),
}.items():
    write("packet", name, b"\0" + data)
for name, data in {
    "whole": b"\x18\x04abcd", "two": b"\x10\x03abc\x08\x03def", "two-senders": b"\x10\x03abc\x11\x02xy\x08\x01d\x09\x01z", "middle-first": b"\x28\x03abc\x08\x01d", "new-process": b"\x10\x03abc\x0c\x03def",
    "again": b"\x10\x03abc\x10\x02de\x08\x01f", "forgotten": b"\x10\x03abc\xf0\x08\x01d", "too-large": b"\x10\xff" + b"a" * 255 + b"\x00\xff" + b"b" * 255 + b"\x08\xff" + b"c" * 255, "wrong-offset": b"\x10\x03abc\x28\x01d\x08\x01e",
    "many-senders": b"".join(bytes([0x10 + index]) + b"\x02ab" for index in range(4)) + b"\x08\x01c\x09\x01c\x0b\x01c", "much-together": b"\x10\xff" + b"a" * 255 + b"\x00\xff" + b"b" * 255 + b"\x11\xff" + b"c" * 255 + b"\x01\xeb" + b"d" * 235 + b"\x12\x01e\x08\x01f\x09\x01g",
    "two-outsiders": b"\x13\x03abc\x17\x03def\x0b\x01x\x0f\x01y", "outsider-forgotten": b"\x13\x03abc\x17\x03def\xf3\x0b\x01x\x0f\x01y",
    "nothing": b"\x18\x00", "nothing-twice": b"\x10\x00\x08\x00", "publication": b"\x10\x09" + publication[:9] + b"\x08" + bytes([len(publication) - 9]) + publication[9:], "signal": b"\x18" + bytes([len(signal)]) + signal,
    "part-in-part": b"\x18\x0c" + record(3, 1, 0, 0, b""), "topic-longer": b"\x18\x11" + record(1, 0, 9, 7, b"short"), "trailing": b"\x18" + bytes([len(signal) + 1]) + signal + b"\1", "kind-only": b"\x18\x01\x02", "count-lies": b"\x18\x0d" + record(2, 0, 0, 0, b"x", count=0xFFFFFFFF),
}.items():
    write("packet", "parts-" + name, b"\1" + data)
