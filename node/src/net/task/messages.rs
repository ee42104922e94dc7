//! Gossip, questions, answers, and the loop's commands.

use super::*;

impl Task {
    fn topic(&self, hash: &TopicHash) -> Option<Topic> {
        self.topics.iter().find(|(_, known)| known == hash).map(|(topic, _)| *topic)
    }

    fn hash(&self, topic: Topic) -> TopicHash {
        match self.topics.iter().find(|(known, _)| *known == topic) {
            Some((_, hash)) => hash.clone(),
            None => unreachable!("every topic is in the list"),
        }
    }

    pub(super) fn on_gossip(&mut self, event: gossipsub::Event, now: Instant) {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                count(&self.shared.counters().gossip_received);
                let taken = self.take_message(propagation_source, &message_id, message, now);
                if taken.is_none() {
                    count(&self.shared.counters().gossip_overflow);
                    self.report(&message_id, &propagation_source, Verdict::Ignore);
                }
            }
            gossipsub::Event::Subscribed { topic, .. } => {
                if let Some(topic) = self.topic(&topic) {
                    for waiting in self.outbox.iter_mut().filter(|waiting| waiting.topic == topic && waiting.due <= now + limits::HEARTBEAT)
                    {
                        waiting.due = now;
                    }
                    self.flush_outbox(now);
                }
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => debug!(peer = %peer_id, "a peer takes messages too slowly"),
            gossipsub::Event::GossipsubNotSupported { .. } | gossipsub::Event::Unsubscribed { .. } => {}
        }
    }

    /// Numbers a message and hands it on; `None` when there is no room for it.
    fn take_message(&mut self, source: PeerId, id: &MessageId, message: gossipsub::Message, now: Instant) -> Option<()> {
        let topic = self.topic(&message.topic)?;
        let connected = self.peers.get_mut(&source)?;
        if self.messages.len() >= limits::OPEN_MESSAGES_MAX || connected.open_messages >= limits::OPEN_MESSAGES_PER_PEER {
            return None;
        }
        if !connected.useless.take(1.0, now) {
            connected.overdrawn += 1;
            if connected.overdrawn >= limits::USELESS_PER_FAULT {
                connected.overdrawn = 0;
                self.penalise(source, PeerFault::Greedy, now);
            }
            return None;
        }
        let peer = connected.number;
        let number = Message(self.number());
        self.offer(NetEvent::Gossip { peer, message: number, topic, bytes: message.data }).ok()?;
        if let Some(connected) = self.peers.get_mut(&source) {
            connected.open_messages += 1;
        }
        self.messages.insert(number, OpenMessage { id: id.clone(), source, at: now });
        self.message_order.push_back((now, number));
        Some(())
    }

    pub(super) fn report(&mut self, id: &MessageId, source: &PeerId, verdict: Verdict) {
        let (acceptance, counter) = match verdict {
            Verdict::Accept => (MessageAcceptance::Accept, &self.shared.counters().gossip_accepted),
            Verdict::Reject => (MessageAcceptance::Reject, &self.shared.counters().gossip_rejected),
            Verdict::Ignore => (MessageAcceptance::Ignore, &self.shared.counters().gossip_ignored),
        };
        count(counter);
        if !self.swarm.behaviour_mut().gossip.report_message_validation_result(id, source, acceptance) {
            count(&self.shared.counters().gossip_late_verdicts);
        }
        match verdict {
            Verdict::Accept => {
                self.useful = Instant::now();
                if let Some(connected) = self.peers.get_mut(source) {
                    connected.useless.give_back(1.0);
                }
            }
            Verdict::Reject => self.judge_one(*source),
            Verdict::Ignore => {}
        }
    }

    pub(super) fn close_message(&mut self, message: Message) -> Option<OpenMessage> {
        let open = self.messages.remove(&message)?;
        if let Some(connected) = self.peers.get_mut(&open.source) {
            connected.open_messages = connected.open_messages.saturating_sub(1);
        }
        Some(open)
    }

    pub(super) fn on_sync(&mut self, event: SyncEvent, now: Instant) {
        match event {
            request_response::Event::Message { peer, message: request_response::Message::Request { request, channel, .. }, .. } => {
                let Some(connected) = self.peers.get(&peer) else { return };
                let number = connected.number;
                match request {
                    Ok(query) => {
                        let room = self.answers.len() < limits::OPEN_ANSWERS_MAX;
                        if !room || connected.open_answers >= limits::OPEN_ANSWERS_PER_PEER {
                            count(&self.shared.counters().sync_refused);
                            if room {
                                self.penalise(peer, PeerFault::Greedy, now);
                            }
                            return;
                        }
                        let answer = AnswerId(self.number());
                        if self.offer(NetEvent::Asked { peer: number, answer, query }).is_err() {
                            count(&self.shared.counters().sync_refused);
                            return;
                        }
                        if let Some(connected) = self.peers.get_mut(&peer) {
                            connected.open_answers += 1;
                        }
                        self.answers.insert(answer, OpenAnswer { peer, channel, at: now });
                    }
                    Err(fault) => {
                        debug!(%peer, %fault, "a question breaks the protocol");
                        self.penalise(peer, PeerFault::BadReply, now);
                    }
                }
            }
            request_response::Event::Message { message: request_response::Message::Response { request_id, response }, .. } => {
                let Some((peer, ask, query)) = self.asks.remove(&request_id) else { return };
                let answered = match response {
                    Ok(reply) if reply.answers(&query) => Answered::With(reply),
                    Ok(_) | Err(_) => Answered::Invalid,
                };
                self.tell(NetEvent::Replied { peer, ask, answered });
            }
            request_response::Event::OutboundFailure { request_id, error, .. } => {
                let Some((peer, ask, _)) = self.asks.remove(&request_id) else { return };
                debug!(?peer, %error, "a question has no answer");
                self.tell(NetEvent::Replied { peer, ask, answered: Answered::Failed });
            }
            request_response::Event::InboundFailure { peer, error, .. } => trace!(%peer, %error, "an answer did not arrive"),
            request_response::Event::ResponseSent { .. } => count(&self.shared.counters().sync_answered),
        }
    }

    pub(super) fn on_command(&mut self, command: NetCommand) {
        let now = Instant::now();
        match command {
            NetCommand::Verdict { message, verdict } => match self.close_message(message) {
                Some(open) => self.report(&open.id, &open.source, verdict),
                None => count(&self.shared.counters().gossip_late_verdicts),
            },
            NetCommand::Publish { topic, bytes } => self.publish(Waiting { topic, bytes, since: now, due: now }, now),
            NetCommand::Ask { peer, ask, query } => {
                let id = self.numbers.id(peer).filter(|id| self.peers.contains_key(id) && self.asks.len() < limits::OPEN_ASKS_MAX);
                let Some(id) = id else {
                    return self.tell(NetEvent::Replied { peer, ask, answered: Answered::Failed });
                };
                let request = self.swarm.behaviour_mut().sync.send_request(&id, Ok(query.clone()));
                self.asks.insert(request, (peer, ask, query));
            }
            NetCommand::Answer { answer, with } => {
                let Some(open) = self.answers.remove(&answer) else { return };
                self.answer_closed(&open.peer);
                match with {
                    // The peer may have gone or given up: then there is nobody to tell.
                    Some(reply) => drop(self.swarm.behaviour_mut().sync.send_response(open.channel, Ok(reply))),
                    None => count(&self.shared.counters().sync_refused),
                }
            }
            NetCommand::Penalise { peer, fault } => {
                // Also one that has left meanwhile: it comes back with what it did.
                if let Some(id) = self.numbers.id(peer) {
                    self.penalise(id, fault, now);
                }
            }
        }
    }

    pub(super) fn answer_closed(&mut self, peer: &PeerId) {
        if let Some(connected) = self.peers.get_mut(peer) {
            connected.open_answers = connected.open_answers.saturating_sub(1);
        }
    }

    pub(super) fn penalise(&mut self, peer: PeerId, fault: PeerFault, now: Instant) {
        let score = self.application.penalise(peer, fault, now);
        debug!(%peer, ?fault, score, "a peer loses score");
        self.swarm.behaviour_mut().gossip.set_application_score(&peer, score);
        self.judge_one(peer);
    }

    /// Sends a peer away that has sunk too low: at once, since a flood does much within a second.
    pub(super) fn judge_one(&mut self, peer: PeerId) {
        let Some(connected) = self.peers.get(&peer) else { return };
        let behaviour = self.swarm.behaviour_mut();
        let score = behaviour.gossip.peer_score(&peer).unwrap_or(0.0);
        if score < scoring::DROP && !behaviour.gate.refuses(&peer) {
            count(&self.shared.counters().peers_sent_away);
            warn!(%peer, agent = connected.agent, score, "a peer misbehaves and is refused for a while");
            behaviour.gate.refuse(peer, limits::REFUSED_FOR);
        }
    }

    /// Gossips, or keeps what nobody took. Gossip remembers a message before it queues it, so a retry is only possible once it has
    /// forgotten; meanwhile it still offers the message in its heartbeats.
    pub(super) fn publish(&mut self, waiting: Waiting, now: Instant) {
        let hash = self.hash(waiting.topic);
        let due = match self.swarm.behaviour_mut().gossip.publish(hash, waiting.bytes.clone()) {
            Ok(_) => return count(&self.shared.counters().published),
            Err(PublishError::Duplicate) => return,
            Err(PublishError::NoPeersSubscribedToTopic) => now + limits::HEARTBEAT,
            Err(PublishError::AllQueuesFull(_)) => now + limits::DUPLICATE_CACHE + limits::HEARTBEAT,
            Err(error) => {
                warn!(%error, "a receipt could not be gossiped");
                return count(&self.shared.counters().publish_dropped);
            }
        };
        if waiting.since == now {
            count(&self.shared.counters().publish_deferred);
        }
        if self.outbox.len() == limits::OUTBOX_MAX {
            self.outbox.pop_front();
            count(&self.shared.counters().publish_dropped);
        }
        self.outbox.push_back(Waiting { due, ..waiting });
    }

    pub(super) fn flush_outbox(&mut self, now: Instant) {
        let mut room = limits::OUTBOX_AT_ONCE;
        for waiting in std::mem::take(&mut self.outbox) {
            if now.duration_since(waiting.since) > limits::OUTBOX_AGE {
                count(&self.shared.counters().publish_dropped);
            } else if waiting.due <= now && room > 0 {
                room -= 1;
                self.publish(waiting, now);
            } else {
                self.outbox.push_back(waiting);
            }
        }
    }
}
