import Inet
import Noise

extension Device {
    /// Does what is due. Call it at ``nextDeadline``; earlier or later does no harm.
    public mutating func handleTimeout(now: Instant) {
        while let place = deadlines.popDue(now: now) {
            handleTimeout(of: place, now: now)
            // Everything that was due is disarmed or in the future now, so that the loop ends.
            reschedule(place)
        }
        noteLoad(now: now)
    }

    private mutating func handleTimeout(of place: Int, now: Instant) {
        // WG §6.3: after so long nobody can decrypt what was recorded, not even with this machine in hand.
        if PeerTimers.fire(&peers[place].timers.zeroing, now: now) { peers[place].wipe(indices: &indices) }
        if PeerTimers.fire(&peers[place].timers.giveUp, now: now) {
            giveUpHandshake(with: place, now: now)
        } else if PeerTimers.fire(&peers[place].timers.retransmitHandshake, now: now) {
            peers[place].wantsInitiation = true
            outbox.enqueue(&peers[place])
            // Not so if it only waited for its turn.
            if peers[place].initiationIndex != nil {
                counters.handshakesRetried &+= 1
                // Whatever address of ours the peer talked to, nothing comes back to it now; the kernel may know a better one.
                if peers[place].isSilent { peers[place].localAddress = nil }
                emit(.handshakeRetry(peers[place].id))
            }
        }
        if peers[place].timers.fireNewHandshake(now: now) {
            peers[place].localAddress = nil
            if peers[place].keypairs.isReady(now: now), !peers[place].isHandshaking { emit(.sessionStale(peers[place].id)) }
            startHandshake(with: place, now: now)
        }
        if peers[place].timers.firePassiveKeepalive(now: now) {
            peers[place].wantsKeepalive = true
            outbox.enqueue(&peers[place])
        }
        if PeerTimers.fire(&peers[place].timers.persistentKeepalive, now: now) {
            if let interval = peers[place].keepaliveInterval { peers[place].timers.persistentKeepalive = now + interval }
            sendKeepaliveOrHandshake(to: place, now: now)
        }
    }

    /// Asks for new keys, unless that is under way; at most one initiation in REKEY-TIMEOUT. The side that does not know the peer's
    /// endpoint waits to be asked, as long as it would wait for an answer.
    mutating func startHandshake(with place: Int, now: Instant) {
        guard hasPrivateKey, agree(withPeerAt: place) else { return }
        guard peers[place].endpoint != nil else {
            if !peers[place].staged.isEmpty, peers[place].timers.giveUp == PeerTimers.off {
                peers[place].timers.giveUp = now + Constants.rekeyAttemptTime
            }
            return
        }
        guard !peers[place].isHandshaking else { return }
        // A deadline left from waiting for an endpoint is not this handshake's.
        peers[place].timers.giveUp = now + Constants.rekeyAttemptTime
        if let last = peers[place].lastInitiationSentAt, now < last + Constants.rekeyTimeout {
            peers[place].timers.retransmitHandshake = last + Constants.rekeyTimeout
            return
        }
        if peers[place].keypairs.isAboutToBeConfirmed(now: now), !peers[place].keypairs.isReady(now: now) {
            // The peer was first; if our response got lost, so will its patience be, and we try in its place.
            peers[place].timers.retransmitHandshake = now + Constants.rekeyTimeout + random.jitter()
            return
        }
        // After so long the peer may be elsewhere.
        if let last = peers[place].lastHandshake, now >= last + Constants.rejectAfterTime { emit(.sessionStale(peers[place].id)) }
        peers[place].wantsInitiation = true
        outbox.enqueue(&peers[place])
    }

    /// A sign of life, by whatever way there is. Also what starts again a handshake that was given up.
    mutating func sendKeepaliveOrHandshake(to place: Int, now: Instant) {
        if peers[place].keypairs.isReady(now: now) {
            peers[place].wantsKeepalive = true
            outbox.enqueue(&peers[place])
        } else {
            startHandshake(with: place, now: now)
        }
    }

    private mutating func giveUpHandshake(with place: Int, now: Instant) {
        dropStaged(of: place, reason: .handshakeGaveUp)
        peers[place].timers.retransmitHandshake = PeerTimers.off
        peers[place].wantsInitiation = false
        // What is left of the handshake goes too, though no key came of it (WG §6.3).
        if peers[place].timers.zeroing == PeerTimers.off { peers[place].timers.zeroing = now + Constants.zeroingTime }
        counters.handshakesGivenUp &+= 1
        peers[place].handshakes.gaveUp &+= 1
        emit(.handshakeGaveUp(peers[place].id))
    }
}
