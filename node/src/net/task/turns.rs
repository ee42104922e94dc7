//! What time brings: retries, what took too long, scores, and what people see.

use super::*;

impl Task {
    pub(super) fn nodes(&self) -> usize {
        self.peers.values().filter(|peer| peer.up).count()
    }

    pub(super) fn turn(&mut self) {
        let now = Instant::now();
        self.swarm.behaviour_mut().gate.tidy(now);
        self.discover(now);
        if now.duration_since(self.seconds) >= limits::HEARTBEAT {
            self.seconds = now;
            self.hear(now);
            self.forget(now);
            self.flush_outbox(now);
            self.judge(now);
            self.exchange(now);
            self.give_up(now);
            self.ask_relays(now);
            self.publish_view(now);
            self.publish_pools();
            if now.duration_since(self.written) >= limits::REMEMBER_EVERY {
                self.written = now;
                self.remember();
            }
        }
    }

    /// A few kilobytes, seldom, and only when they changed: not worth a thread.
    pub(super) fn remember(&mut self) {
        let reached = self.peers.iter().filter(|(_, peer)| peer.up && peer.outbound);
        self.remembered.keep(reached.map(|(id, peer)| peer.address.clone().with_p2p(*id).unwrap_or_else(|a| a)));
    }

    /// Drops what took too long.
    fn forget(&mut self, now: Instant) {
        while let Some(&(at, message)) = self.message_order.front() {
            let open = self.messages.contains_key(&message);
            if open && now.duration_since(at) < limits::VERDICT_WITHIN {
                break;
            }
            self.message_order.pop_front();
            if let Some(open) = self.close_message(message) {
                trace!(waited = ?now.duration_since(open.at), "no verdict came in time");
                count(&self.shared.counters().gossip_late_verdicts);
                self.report(&open.id, &open.source, Verdict::Ignore);
            }
        }
        let old: Vec<_> =
            self.answers.iter().filter(|(_, open)| now.duration_since(open.at) > limits::ASK_TIMEOUT).map(|(answer, _)| *answer).collect();
        for answer in old {
            if let Some(open) = self.answers.remove(&answer) {
                self.answer_closed(&open.peer);
            }
        }
        let silent: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, p)| p.heard.is_none() && now.duration_since(p.since) > limits::IDENTIFY_WITHIN)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in silent {
            debug!(%peer, "dropped a peer that does not say who it is");
            self.swarm.behaviour_mut().gate.refuse(peer, limits::IDENTIFY_WITHIN);
        }
    }

    /// Application scores decay; who has sunk too low is sent away.
    fn judge(&mut self, now: Instant) {
        for (peer, score) in self.application.refresh(now) {
            self.swarm.behaviour_mut().gossip.set_application_score(&peer, score);
        }
        for peer in self.peers.keys().copied().collect::<Vec<_>>() {
            self.judge_one(peer);
        }
    }

    /// How full everything is that a peer can fill.
    fn publish_pools(&self) {
        let gate = &self.swarm.behaviour().gate;
        let info = self.swarm.network_info();
        let lines = info.connection_counters();
        let incoming = lines.num_established_incoming() as usize;
        let unanswered = lines.num_pending_incoming() as usize;
        for (name, used, limit) in [
            ("connections", lines.num_established() as usize, limits::CONNECTIONS_MAX as usize),
            ("connections_incoming", incoming, limits::CONNECTIONS_INCOMING_MAX as usize),
            ("handshakes_incoming", unanswered, limits::PENDING_INCOMING_MAX as usize),
            ("open_messages", self.messages.len(), limits::OPEN_MESSAGES_MAX),
            ("open_answers", self.answers.len(), limits::OPEN_ANSWERS_MAX),
            ("open_asks", self.asks.len(), limits::OPEN_ASKS_MAX),
            ("publish_waiting", self.outbox.len(), limits::OUTBOX_MAX),
            ("net_backlog", self.backlog.len(), limits::NET_BACKLOG),
            ("address_book", self.book.len(), limits::ADDRESS_BOOK_MAX),
            ("refused_peers", gate.refused(), limits::REFUSED_MAX),
            ("handshake_addresses", gate.knocking(), limits::HANDSHAKES_ADDRESSES),
        ] {
            self.shared.set_pool(name, used, limit);
        }
    }

    pub(super) fn publish_view(&mut self, now: Instant) {
        let gossip = &self.swarm.behaviour().gossip;
        let mut peers: Vec<PeerInfo> = self
            .peers
            .iter()
            .map(|(id, peer)| PeerInfo {
                number: peer.number.0,
                peer_id: id.to_string(),
                address: peer.address.to_string(),
                outbound: peer.outbound,
                agent: peer.agent.clone(),
                node: peer.up,
                score: gossip.peer_score(id).unwrap_or(0.0),
                ping_ms: peer.ping_ms,
                connected_secs: now.duration_since(peer.since).as_secs(),
            })
            .collect();
        peers.sort_unstable_by_key(|peer| peer.number);
        let listening: Arc<[String]> =
            self.swarm.listeners().map(|a| a.clone().with_p2p(self.local).unwrap_or_else(|a| a).to_string()).collect();
        self.view.send_replace(Arc::new(NetView { peers: peers.into(), listening }));
    }
}
