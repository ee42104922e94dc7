//! Who is connected, who they are, and whom to call.

use super::*;

impl Task {
    pub(super) fn on_swarm(&mut self, event: SwarmEvent<Event>) {
        let now = Instant::now();
        match event {
            SwarmEvent::Behaviour(Event::Gossip(event)) => self.on_gossip(event, now),
            SwarmEvent::Behaviour(Event::Sync(event)) => self.on_sync(event, now),
            SwarmEvent::Behaviour(Event::Identify(event)) => self.on_identify(*event, now),
            SwarmEvent::Behaviour(Event::Kad(event)) => self.on_kad(*event, now),
            SwarmEvent::Behaviour(Event::Ping(ping::Event { peer, connection, result })) => match result {
                Ok(round) => {
                    if let Some(connected) = self.peers.get_mut(&peer) {
                        connected.ping_ms = Some(u64::try_from(round.as_millis()).unwrap_or(u64::MAX));
                    }
                }
                Err(ping::Failure::Unsupported) => {}
                // Nothing else notices: TCP waits a quarter of an hour for an answer, and a line that says nothing looks like a quiet one.
                Err(failure) => {
                    debug!(%peer, %failure, "closed a line that does not answer");
                    // With all others to the same peer: it may have noticed sooner and come back meanwhile. Gossip tells a peer its topics once, on the
                    // line that is dead now, and the peer has forgotten them.
                    if self.swarm.disconnect_peer_id(peer).is_err() {
                        self.swarm.close_connection(connection);
                    }
                }
            },
            SwarmEvent::Behaviour(Event::Autonat(autonat::Event::StatusChanged { new, .. })) => {
                debug!(?new, "whether others reach this node");
                self.out_of_reach = new == autonat::NatStatus::Private;
                self.show_or_hide();
                self.ask_relays(now);
            }
            SwarmEvent::Behaviour(Event::Autonat(_)) => {}
            SwarmEvent::Behaviour(Event::Relay(relay::client::Event::ReservationReqAccepted { relay_peer_id, renewal: false, .. })) => {
                info!(relay = %relay_peer_id, "others reach this node through a relay");
                self.show_or_hide();
            }
            SwarmEvent::Behaviour(Event::Relay(event)) => debug!(?event, "a relayed line"),
            SwarmEvent::Behaviour(Event::Punch(dcutr::Event { remote_peer_id, result })) => match result {
                Ok(_) => {
                    count(&self.shared.counters().punched);
                    info!(peer = %remote_peer_id, "a direct line takes the place of a relayed one");
                }
                Err(error) => debug!(peer = %remote_peer_id, %error, "no direct line: the relayed one stays while the relay lets it"),
            },
            SwarmEvent::Behaviour(Event::Mdns(mdns::Event::Discovered(neighbours))) => {
                for (peer, address) in neighbours {
                    self.book.learn(peer, [address], Reach::Private, now);
                }
            }
            SwarmEvent::Behaviour(Event::Mdns(mdns::Event::Expired(_))) => {}
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                for (address, failures) in self.book.answered(&peer_id, connection_id) {
                    info!(peer = %peer_id, %address, failures, "a bootstrap peer is reached after failures");
                }
                count(&self.shared.counters().connections_opened);
                let (address, outbound, relayed) = (endpoint.get_remote_address().clone(), endpoint.is_dialer(), endpoint.is_relayed());
                let dialled = outbound.then(|| address.clone());
                if let Some(known) = self.peers.get_mut(&peer_id) {
                    let direct = !known.relayed && !relayed;
                    let lost = known.up && direct && !outbound && now.duration_since(known.since) >= limits::BEGUN_ANEW;
                    (known.address, known.outbound, known.relayed) = (address, outbound, relayed);
                    known.dialled = dialled.or(known.dialled.take());
                    if lost {
                        // It has forgotten what gossip told it on its first line, and gossip tells its topics once: both begin anew.
                        debug!(peer = %peer_id, "a peer lost its line and called again");
                        let _ = self.swarm.disconnect_peer_id(peer_id);
                    }
                    return;
                }
                debug!(peer = %peer_id, %address, outbound, "connected");
                let number = self.numbers.came(peer_id, now);
                let connected = Connected {
                    number,
                    address,
                    dialled,
                    outbound,
                    relayed,
                    since: now,
                    agent: String::new(),
                    heard: None,
                    later: None,
                    tabled: false,
                    listed: None,
                    up: false,
                    ping_ms: None,
                    open_messages: 0,
                    open_answers: 0,
                    useless: Budget::new(limits::USELESS_BURST, limits::USELESS_PER_SEC, now),
                    overdrawn: 0,
                };
                self.peers.insert(peer_id, connected);
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established, cause, .. } => {
                count(&self.shared.counters().connections_closed);
                if let Some(ConnectionError::IO(error)) = &cause
                    && is_flood(error)
                {
                    count(&self.shared.counters().floods_cut_off);
                    warn!(peer = %peer_id, "a peer floods this node and is refused for a while");
                    self.swarm.behaviour_mut().gate.refuse(peer_id, limits::REFUSED_FOR);
                }
                if num_established > 0 {
                    return;
                }
                if let Some(relays) = &mut self.relays {
                    relays.remove(&peer_id);
                }
                debug!(peer = %peer_id, cause = cause.map(|c| c.to_string()), "disconnected");
                self.book.left(&peer_id, now);
                if let Some(autonat) = self.swarm.behaviour_mut().autonat.as_mut() {
                    autonat.remove_server(&peer_id);
                }
                if let Some(gone) = self.peers.remove(&peer_id) {
                    self.numbers.left(peer_id, now);
                    if gone.up {
                        info!(peer = %peer_id, nodes = self.nodes(), "a peer left");
                        self.tell(NetEvent::Down { peer: gone.number });
                    }
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id, error } => {
                self.on_dial_error(connection_id, peer_id, &error, now)
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                trace!(%send_back_addr, %error, "a connection was not taken")
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                info!(address = %address.with_p2p(self.local).unwrap_or_else(|a| a), "listening");
                self.publish_view(now);
            }
            SwarmEvent::ListenerClosed { listener_id, addresses, reason } => {
                let relayed = addresses.iter().any(|a| a.iter().any(|part| part == Protocol::P2pCircuit))
                    || self.relays.iter().flatten().any(|(_, relay)| relay.listener == Some(listener_id));
                for relay in self.relays.iter_mut().flat_map(HashMap::values_mut).filter(|relay| relay.listener == Some(listener_id)) {
                    relay.listener = None;
                }
                if relayed {
                    debug!(?reason, "a relay does not lead here any more");
                    self.show_or_hide();
                } else {
                    warn!(?addresses, ?reason, "no longer listening");
                }
            }
            SwarmEvent::ListenerError { error, .. } => warn!(%error, "a listener had an error"),
            SwarmEvent::ExternalAddrConfirmed { address } => {
                info!(%address, "others reach this node here");
                // Identify tells of new addresses to listen on by itself, of these only when it is asked.
                let peers: Vec<_> = self.peers.keys().copied().collect();
                self.swarm.behaviour_mut().identify.push(peers);
            }
            _ => {}
        }
    }

    pub(super) fn on_dial_error(&mut self, dial: ConnectionId, peer: Option<PeerId>, error: &DialError, now: Instant) {
        trace!(?peer, %error, "a dial failed");
        if let Some(boot) = self.book.bootstrap_of(dial)
            && let Some(complaint) = complaint(error, boot.named())
            && let Some(failures) = boot.missed()
        {
            let (cause, advice) = (complaint.cause, complaint.advice);
            warn!(address = %boot.address, failures, "a bootstrap address cannot be reached: {cause}; {advice}");
        }
        match error {
            DialError::LocalPeerId { .. } => self.book.own(dial),
            DialError::WrongPeerId { address, .. } => {
                if let Some(named) = peer {
                    self.book.wrong_peer(named, address);
                }
                self.book.failed(peer, dial, true, now);
            }
            // Not its fault: this node did not want it now.
            DialError::Denied { cause } => {
                let refused = cause.downcast_ref::<Refused>().is_some();
                self.book.failed(peer, dial, !refused, now);
            }
            DialError::DialPeerConditionFalse(_) => self.book.failed(peer, dial, false, now),
            _ => self.book.failed(peer, dial, true, now),
        }
    }

    fn on_identify(&mut self, event: identify::Event, now: Instant) {
        let (peer, info) = match event {
            identify::Event::Received { peer_id, info, .. } => (peer_id, info),
            identify::Event::Error { peer_id, error, .. } => {
                debug!(peer = %peer_id, %error, "a peer does not say who it is");
                return;
            }
            _ => return,
        };
        let Some(connected) = self.peers.get_mut(&peer) else { return };
        if connected.heard.is_some_and(|heard| now.duration_since(heard) < limits::IDENTIFY_EVERY) {
            connected.later = Some(Box::new(info));
            return;
        }
        self.identified(peer, info, now);
    }

    pub(super) fn identified(&mut self, peer: PeerId, info: identify::Info, now: Instant) {
        if info.protocol_version != self.identify {
            let said: String = info.protocol_version.chars().filter(char::is_ascii_graphic).take(64).collect();
            if self.book.is_bootstrap(&peer) {
                warn!(%peer, says = said, expected = self.identify, "a bootstrap address leads to another network");
            } else {
                debug!(%peer, says = said, "dropped a peer of another network");
            }
            count(&self.shared.counters().foreign_peers);
            self.swarm.behaviour_mut().gate.refuse(peer, limits::REFUSED_FOR);
            return;
        }
        let Some(connected) = self.peers.get_mut(&peer) else { return };
        let heard = reach(&connected.address).unwrap_or(Reach::Global);
        connected.heard = Some(now);
        connected.agent = info.agent_version.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(64).collect();
        let node = info.protocols.contains(&self.sync);
        let came_up = node && !connected.up;
        connected.up |= node;
        let number = connected.number;
        // A rendezvous tells whether others reach this node; nodes have better things to do.
        if !node
            && info.protocols.contains(&autonat::DEFAULT_PROTOCOL_NAME)
            && let Some(autonat) = self.swarm.behaviour_mut().autonat.as_mut()
        {
            autonat.add_server(peer, None);
        }
        if let Some(relays) = &mut self.relays
            && info.protocols.contains(&relay::HOP_PROTOCOL_NAME)
            && let Some(address) = connected.dialled.clone()
        {
            relays.entry(peer).or_insert(Relayed { address, listener: None, asked: None });
        }
        let known = self.book.learn(peer, info.listen_addrs, heard, now);
        let tabled = info.protocols.contains(&self.kad);
        let first = tabled && !connected.tabled;
        connected.tabled |= tabled;
        // The table only ever adds to what it has of a peer: what has changed is told anew, from nothing.
        let listed = if tabled { listed(peer, connected.dialled.clone(), known) } else { Vec::new() };
        if connected.listed.as_ref() != Some(&listed) {
            let table = &mut self.swarm.behaviour_mut().kad;
            table.remove_peer(&peer);
            for address in &listed {
                table.add_address(&peer, address.clone());
            }
            connected.listed = Some(listed);
        }
        if first && (!came_up || self.nodes() <= limits::PEERS_FEW) {
            // Somebody new to ask for others.
            self.walked = None;
        }
        if came_up {
            info!(%peer, nodes = self.nodes(), "a peer joined");
            self.tell(NetEvent::Up { peer: number });
        }
    }

    fn on_kad(&mut self, event: kad::Event, now: Instant) {
        let kad::Event::OutboundQueryProgressed { result: kad::QueryResult::GetClosestPeers(result), .. } = event else { return };
        let peers = match result {
            Ok(found) => found.peers,
            Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
        };
        // What the table says was heard from peers of this reach; the nearest one is good enough a guess, a wrong address costs a dial.
        let heard = self.peers.values().filter_map(|p| reach(&p.address)).min().unwrap_or(Reach::Global);
        for found in peers {
            self.book.learn(found.peer_id, found.addrs, heard, now);
        }
    }

    /// Who cannot be reached steps out of the table of peers, where it would only cost others dials; who is reached through a relay stays.
    fn show_or_hide(&mut self) {
        let through_relay = self.relays.iter().flatten().any(|(_, relay)| relay.listener.is_some());
        let mode = if self.out_of_reach && !through_relay { kad::Mode::Client } else { kad::Mode::Server };
        self.swarm.behaviour_mut().kad.set_mode(Some(mode));
    }

    /// Has relays lead to this node while nothing else does.
    pub(super) fn ask_relays(&mut self, now: Instant) {
        let Some(relays) = &mut self.relays else { return };
        let open = relays.values().filter(|relay| relay.listener.is_some()).count();
        if !self.out_of_reach {
            for relay in relays.values_mut() {
                if let Some(listener) = relay.listener.take() {
                    self.swarm.remove_listener(listener);
                }
            }
            return;
        }
        let due = |relay: &Relayed| {
            relay.listener.is_none() && relay.asked.is_none_or(|asked| now.duration_since(asked) >= limits::RELAY_ASK_EVERY)
        };
        for (peer, relay) in relays.iter_mut().filter(|(_, relay)| due(relay)).take(limits::RELAYS_WANTED.saturating_sub(open)) {
            relay.asked = Some(now);
            let there = relay.address.clone().with_p2p(*peer).unwrap_or_else(|a| a).with(Protocol::P2pCircuit);
            match self.swarm.listen_on(there) {
                Ok(listener) => relay.listener = Some(listener),
                Err(error) => debug!(relay = %peer, %error, "a relay cannot be asked"),
            }
        }
    }

    /// While gossip brings nothing, all lines may lead to nodes that keep their silence: the least useful one is given up, the bootstrap
    /// addresses are called again, and somebody else is.
    pub(super) fn exchange(&mut self, now: Instant) {
        let quiet = now.duration_since(self.useful) >= limits::QUIET && now.duration_since(self.exchanged) >= limits::QUIET;
        if !quiet || self.nodes() < limits::OUTBOUND_WANTED {
            return;
        }
        self.exchanged = now;
        let full = self.peers.values().filter(|peer| !peer.outbound).count() >= limits::CONNECTIONS_INCOMING_MAX as usize;
        let gossip = &self.swarm.behaviour().gossip;
        let least = |outbound: bool| {
            let settled = self.peers.iter().filter(|(id, peer)| {
                peer.outbound == outbound && now.duration_since(peer.since) >= limits::QUIET && !self.book.is_bootstrap(id)
            });
            settled
                .map(|(id, peer)| (gossip.peer_score(id).unwrap_or(0.0), peer.since, *id))
                .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))
        };
        let peers = &self.peers;
        let gate = &self.swarm.behaviour().gate;
        let given_up: Vec<PeerId> = [(true, self.book.knows_others(|peer| peers.contains_key(peer) || gate.refuses(peer))), (false, full)]
            .into_iter()
            .filter(|(_, wanted)| *wanted)
            .filter_map(|(outbound, _)| Some(least(outbound)?.2))
            .collect();
        for peer in given_up {
            debug!(%peer, "nothing is heard: a line is given up for another one");
            self.swarm.behaviour_mut().gate.refuse(peer, limits::EXCHANGED_FOR);
        }
    }

    /// Gives up lines past what is wanted: own ones that no mesh uses, the least useful first. Not while nothing is heard: then more are
    /// wanted.
    pub(super) fn give_up(&mut self, now: Instant) {
        if now.duration_since(self.useful) >= limits::QUIET {
            return;
        }
        let outbound = self.peers.values().filter(|peer| peer.up && peer.outbound).count();
        let many = self.nodes().saturating_sub(limits::PEERS_MANY).min(outbound.saturating_sub(limits::OUTBOUND_WANTED));
        if many == 0 {
            return;
        }
        let gossip = &self.swarm.behaviour().gossip;
        let meshed: HashSet<PeerId> = self.topics.iter().flat_map(|(_, hash)| gossip.mesh_peers(hash)).copied().collect();
        let mut idle: Vec<(f64, Reverse<Instant>, PeerId)> = self
            .peers
            .iter()
            .filter(|(id, peer)| {
                peer.up
                    && peer.outbound
                    && now.duration_since(peer.since) >= limits::GIVEN_UP_AFTER
                    && !meshed.contains(id)
                    && !self.book.is_bootstrap(id)
            })
            .map(|(id, peer)| (gossip.peer_score(id).unwrap_or(0.0), Reverse(peer.since), *id))
            .collect();
        idle.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (_, _, peer) in idle.into_iter().take(many.min(limits::GIVEN_UP_PER_SEC)) {
            debug!(%peer, "gave up a line that nothing uses");
            // It may have gone meanwhile.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    pub(super) fn discover(&mut self, now: Instant) {
        let nodes = self.nodes();
        let outbound = self.peers.values().filter(|peer| peer.up && peer.outbound).count();
        let quiet = now.duration_since(self.useful) >= limits::QUIET;
        // Whoever fills the incoming lines shall not be all that this node hears; and while it hears nothing, it calls some more.
        let own = limits::OUTBOUND_WANTED * if quiet { 2 } else { 1 };
        let missing = limits::PEERS_WANTED.saturating_sub(nodes).max(own.saturating_sub(outbound));
        if missing > 0 || quiet {
            let peers = &self.peers;
            let mut dials = Vec::new();
            for boot in self.book.bootstrap_due(|peer| peers.contains_key(peer), now) {
                let opts = match boot.peer {
                    Some(peer) => {
                        DialOpts::peer_id(peer).addresses(vec![boot.address.clone()]).condition(PeerCondition::Disconnected).build()
                    }
                    None => DialOpts::unknown_peer_id().address(boot.address.clone()).build(),
                };
                boot.dial = Some(opts.connection_id());
                dials.push(opts);
            }
            let gate = &self.swarm.behaviour().gate;
            let due = self.book.take_due(limits::DIALS_PER_TURN.min(missing), |peer| peers.contains_key(peer) || gate.refuses(peer), now);
            dials.extend(due.into_iter().map(|(peer, addresses)| to(peer, addresses, PeerCondition::DisconnectedAndNotDialing)));
            for opts in dials {
                let (dial, peer) = (opts.connection_id(), opts.get_peer_id());
                if let Err(error) = self.swarm.dial(opts) {
                    self.on_dial_error(dial, peer, &error, now);
                }
            }
        }
        let every = match nodes {
            few if few < limits::PEERS_FEW => limits::WALK_OFTEN,
            enough if enough >= limits::PEERS_WANTED && !quiet => limits::WALK_RARELY,
            _ => limits::WALK_SELDOM,
        };
        let due = self.walked.is_none_or(|walked| now.duration_since(walked) >= every);
        if due && self.peers.values().any(|peer| peer.heard.is_some()) {
            // Around this node's own place first, then anywhere.
            let key = if self.walked.is_none() { self.local } else { PeerId::random() };
            self.walked = Some(now);
            self.swarm.behaviour_mut().kad.get_closest_peers(key);
        }
    }

    /// Looks at what peers said of themselves too soon after the time before.
    pub(super) fn hear(&mut self, now: Instant) {
        let due: Vec<_> = self
            .peers
            .iter_mut()
            .filter(|(_, p)| p.heard.is_some_and(|heard| now.duration_since(heard) >= limits::IDENTIFY_EVERY))
            .filter_map(|(peer, p)| Some((*peer, p.later.take()?)))
            .collect();
        for (peer, info) in due {
            self.identified(peer, *info, now);
        }
    }
}
