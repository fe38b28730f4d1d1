import ApusPlatform

/// When a connection does not read, and when it reads again.
extension Connection {
    /// Stops reading.
    func pauseReading(_ reason: PauseReasons) {
        guard !pauses.contains(reason) else { return }
        // Written at one stroke, so that reading it for each event needs no check.
        pauses = pauses.union(reason)
        context.unsettled(self)
    }

    /// Reads on when no other reason is left. What has been read and not used is served first, in the next part of the turn.
    func resumeReading(_ reason: PauseReasons) {
        guard !pauses.isDisjoint(with: reason) else { return }
        pauses = pauses.subtracting(reason)
        context.unsettled(self)
    }

    /// Stops reading a WebSocket's messages until the peer has taken output; false when it is closing: then its close frame is waited for.
    func pauseUnlessClosing() -> Bool {
        guard case .webSocket(let socket) = phase, socket.isOpen else { return false }
        pauseReading(.output)
        return true
    }

    /// The peer has sent FIN, and what it had sent before is not read yet.
    func peerEndedWhilePaused() {
        guard !peerHasEnded else { return }
        peerHasEnded = true
        let hasUnread = !carry.isEmpty || isSecure || Socket.hasInput(transport.descriptor)
        switch phase {
        case .webSocket(let socket):
            if hasUnread { socket.peerEndedWhilePaused() } else { return lost() }
        case .exchange(let exchange):
            if !hasUnread { return exchange.peerEnded() }
        case .securing, .opening, .http, .finishing, .lingering, .closed: break
        }
        updateInterest(reading: true)
    }

    /// Counts output that the peer has caused and that waits behind all other output.
    func noteCaused(_ bytes: Int) { setCaused(caused.appending(bytes, behind: bufferedBytes)) }

    func setCaused(_ output: CausedOutput) {
        caused = output
        isBackedUp = !origin.isThisSide && output.bytes >= Self.backPressureBytes
    }

    /// Bytes of caused output at which reading stops. On a client's own connection only answers of TLS itself stop it: see `noteAnswers`.
    var backPressureBytes: Int { origin.isThisSide ? context.limits.maxBufferedBytes : Self.backPressureBytes }
}
