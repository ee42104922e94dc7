//! `GET /v1/events`: what happens, as server-sent events.
//!
//! ```text
//!   status                               at the connection and once a second, the body of /v1/status
//!   head share acknowledged false_root peers    as they happen
//!   rejection                            soon after they happen, the newest of a flood
//!   lagged {"missed":n}                  this reader was too slow, or rejections were too many: n events are not told
//! ```
//!
//! A stream takes none of the places of requests, but one of its own, and ends when the node stops. Nothing waits for a slow reader.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::sse::{self, KeepAlive, Sse};
use futures::stream::{self, Stream};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::status::{self, rejection_json};
use super::{Api, Problem, Query};
use crate::state::Event;

/// How often a stream tells the status.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// How often a stream looks for rejections and for the node's end.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Rejections told at one look; of a flood the newest are told and the others counted.
const REJECTIONS_A_LOOK: usize = 16;
/// A comment is sent when nothing was told for so long, so that a connection that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `GET /v1/events`.
pub(super) async fn events(
    State(api): State<Api>,
    RawQuery(raw): RawQuery,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    Query::parse(raw.as_deref(), &[])?;
    let place = api.0.streams.clone().try_acquire_owned();
    let place =
        place.map_err(|_| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many event streams are open: close one and try again"))?;
    let source = Source::new(api, place);
    let told = stream::unfold(source, |mut source| async move { source.next().await.map(|event| (Ok(event), source)) });
    Ok(Sse::new(told).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("still here")))
}

/// What one reader is told.
struct Source {
    api: Api,
    events: Receiver<Event>,
    status: Interval,
    look: Interval,
    /// Rejections that were there already.
    seen: u64,
    waiting: VecDeque<sse::Event>,
    _place: OwnedSemaphorePermit,
}

fn every(period: Duration) -> Interval {
    let mut every = interval(period);
    every.set_missed_tick_behavior(MissedTickBehavior::Skip);
    every
}

impl Source {
    fn new(api: Api, place: OwnedSemaphorePermit) -> Self {
        let (events, seen) = (api.shared.events(), api.shared.rejections_since(0, 0).0);
        Self { api, events, status: every(STATUS_EVERY), look: every(LOOK_EVERY), seen, waiting: VecDeque::new(), _place: place }
    }

    /// The next one; `None`: the node stops.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                return Some(event);
            }
            if self.api.shared.stopping() {
                return None;
            }
            tokio::select! {
                biased;
                _ = self.status.tick() => {
                    // Before the first view there is nothing to tell yet.
                    if let Ok(body) = status::body(&self.api).await {
                        self.tell("status", &body);
                    }
                }
                _ = self.look.tick() => self.rejections(),
                event = self.events.recv() => match event {
                    Ok(event) => self.told(&event),
                    Err(RecvError::Lagged(missed)) => self.missed(missed),
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }

    fn tell(&mut self, name: &str, data: &impl Serialize) {
        // What could not be written as JSON would be a fault of this module; it is not told.
        if let Ok(event) = sse::Event::default().event(name).json_data(data) {
            self.waiting.push_back(event);
        }
    }

    fn missed(&mut self, missed: u64) {
        self.tell("lagged", &json!({ "missed": missed }));
    }

    fn told(&mut self, event: &Event) {
        let (name, data) = words(event);
        self.tell(name, &data);
    }

    fn rejections(&mut self) {
        let (total, fresh) = self.api.shared.rejections_since(self.seen, REJECTIONS_A_LOOK);
        let missed = total.saturating_sub(self.seen).saturating_sub(fresh.len() as u64);
        self.seen = total;
        if missed > 0 {
            self.missed(missed);
        }
        for rejection in &fresh {
            self.tell("rejection", &rejection_json(rejection));
        }
    }
}

/// An event's name and data.
fn words(event: &Event) -> (&'static str, Value) {
    match event {
        Event::Head { root, height, undone } => ("head", json!({ "root": root.to_hex(), "height": height.0, "undone": undone })),
        Event::Share { unit, miner, epoch, head, audited, age_ms } => {
            let data = json!({
                "unit": unit.to_hex(), "miner": miner.to_hex(), "epoch": epoch, "head": head, "audited": audited, "age_ms": age_ms,
            });
            ("share", data)
        }
        Event::Acknowledged { unit, head } => ("acknowledged", json!({ "unit": unit.to_hex(), "head": head })),
        Event::FalseRoot { miner, banned } => ("false_root", json!({ "miner": miner.to_hex(), "banned": banned })),
        Event::Peers { connected } => ("peers", json!({ "connected": connected })),
    }
}
