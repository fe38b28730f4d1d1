import ApusPlatform
import ApusTransport
import Logging

/// The TLS handshake, and what follows it.
extension Connection {
    /// What protects this connection; computed anew by each call.
    var security: Security { isSecure ? transport.security : .plain }

    /// Starts TLS; `next` follows when its handshake is done.
    func secure(with session: TLSSession, for next: Secured, within time: Duration) {
        transport.start(session)
        phase = .securing(next)
        context.loop.schedule(self, after: time)
        // A client speaks first.
        if case .opening = next { handshake(for: next) }
    }

    func handshake(for next: Secured) {
        do throws(TLSError) {
            let progress = try transport.handshake()
            bufferedBytes = transport.bufferedBytes
            switch progress {
            case .waiting: updateInterest(reading: true)
            case .done: secured(next)
            case .notTLS: speakPlainly(next)
            }
        } catch {
            switch next {
            case .opening(let session): session.notSecured(error)
            case .http(let session):
                context.logger.debug("a TLS handshake with \(session.peer) failed: \(error)")
                close()
            }
        }
    }

    private func secured(_ next: Secured) {
        isSecure = true
        context.loop.cancel(self)
        switch next {
        case .http(let session):
            phase = .http(session)
            session.secured(security)
        case .opening(let session):
            phase = .opening(session)
            session.secured()
        }
        guard isOpen else { return }
        // What came right behind the handshake is not reported again.
        do throws(SystemError) {
            let result = try context.receiveBuffer.openReceived(from: transport)
            noteAnswers()
            if case .done(let count) = result, count > 0 { process(from: ReceiveBuffer.headroom, to: ReceiveBuffer.headroom + count) }
            endOfTLS()
            updateInterest(reading: true)
        } catch {
            lost()
        }
    }

    /// A client speaks something else where TLS is spoken.
    private func speakPlainly(_ next: Secured) {
        guard case .http(let session) = next else { return lost() }
        let bytes = transport.becomePlain()
        phase = .http(session)
        session.expectHead()
        if !session.allowsPlainHTTP { session.refusePlainHTTP(bytes) }
        process(from: ReceiveBuffer.headroom, to: context.receiveBuffer.put(bytes))
    }
}
