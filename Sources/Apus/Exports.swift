/// Apus, the library: WebSocket and HTTP/1.1 servers in several supervised processes or in one loop
/// of your own.
///
/// Describe a server with `Server`. `Server.run()` forks workers and supervises them; `Worker` runs
/// the same description in this process. Each worker has one thread, one loop and its own
/// connections; handlers are called on that thread and need no locks. A connection is in one phase
/// at a time: HTTP, WebSocket, lingering or closed.
@_exported public import struct ApusCodec.CloseCode
@_exported public import struct ApusCodec.Cookies
@_exported public import struct ApusCodec.HTTPFields
@_exported public import struct ApusCodec.HTTPMethod
@_exported public import struct ApusCodec.HTTPRequestHead
@_exported public import struct ApusCodec.HTTPResponseHead
@_exported public import struct ApusCodec.HTTPStatus
@_exported public import struct ApusCodec.HTTPVersion
@_exported public import struct ApusCodec.MultipartPart
@_exported public import struct ApusCodec.RouteParameters
@_exported public import struct ApusCodec.SetCookie
@_exported public import enum ApusCodec.SetCookieFault
@_exported public import struct ApusCodec.ExtensionAgreement
@_exported public import struct ApusCodec.ExtensionParameters
@_exported public import struct ApusCodec.ExtensionPiece
@_exported public import struct ApusCodec.ReservedBits
@_exported public import enum ApusCodec.ExtensionError
@_exported public import enum ApusCodec.ExtensionOutcome
@_exported public import class ApusCodec.PerMessageDeflate
@_exported public import protocol ApusCodec.ExtensionSession
@_exported public import protocol ApusCodec.WebSocketExtension
@_exported public import enum ApusCodec.ClientHandshakeError
@_exported public import enum ApusCodec.HTTPFieldError
@_exported public import enum ApusCodec.MessageKind
@_exported public import enum ApusCodec.OriginPolicy
@_exported public import enum ApusPlatform.SocketAddress
@_exported public import enum ApusTransport.Security
@_exported public import enum ApusTransport.TLSVersion
@_exported public import struct ApusTransport.ClientTLS
@_exported public import struct ApusTransport.PeerCertificate
@_exported public import struct ApusTransport.ServerTLS
@_exported public import struct ApusTransport.TLSIdentity
@_exported public import class ApusTransport.TLSInformation

/// The library's version.
public enum Library {
    public static let version = "0.1.0"
}
