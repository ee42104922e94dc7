//! Hands audited receipts to the aggregator: at least once, from the durable outbox, never in anybody's way.
//!
//! ```text
//!   Store::outbox(Due) ──▶ POST text form, Idempotency-Key: <unit> ──┬─ 2xx, 409 ──────────────▶ Delivered { taken: true }
//!        ▲                                                           ├─ other 4xx, ok:false ───▶ Delivered { taken: false }: dead letter
//!        └── 0.5 s .. 60 s later, full jitter ◀──────────────────────┴─ 408, 429, 5xx, network, half an answer
//! ```
//!
//! A redirect is not followed, since nobody else should get the receipts: it is tried again, and the note says where it points. While the disk is full nothing
//! is sent, because what came of it could not be kept.
//!
//! An aggregator that cannot be reached, or that says `Retry-After`, is left alone as a whole until then: not only for the receipt that met it.
//! What is due is the engine's decision, and so is the new state, which it commits. Until that commit shows in the store a unit is not sent
//! again by this process (a refused one that a person replayed shows by its tries, which begin anew); after a crash it may be, and the key
//! tells the aggregator. Requests in flight and units remembered are bounded; what does not fit waits in the store.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use futures::future::BoxFuture;
use rand::Rng;
use reqwest::header::{CONTENT_TYPE, HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Client, StatusCode, redirect};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tops_protocol::codec::{self, AnyReceipt};
use tops_protocol::engine::OutboxState;
use tops_protocol::{Millis, UnitId};
use tops_store::{OutboxRow, PAGE_MAX, Store};
use url::{Host, Url};

use crate::driver::Clock;
use crate::settings::one_line;
use crate::state::{AGES_KEPT, Shared, count};

/// Requests in flight while the aggregator answers; one while it does not.
pub const IN_FLIGHT_MAX: usize = 8;
/// Units remembered between their tries; further ones wait in the store. As many rows are looked at each time.
pub const REMEMBERED_MAX: usize = 4_096;
/// How often the outbox is looked at, and how soon after a delivery.
pub const POLL: Duration = Duration::from_millis(500);
const POLL_BUSY: Duration = Duration::from_millis(5);
/// The shortest pause before a repetition.
pub const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// The longest pause that is chosen here.
pub const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// The longest pause that an aggregator may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);
/// A request without an answer for so long counts as failed.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// As much of an answer is read as any verdict needs; a longer one counts by its status alone.
pub const ANSWER_MAX: usize = 64 * 1024;
/// A delivery whose commit does not show for so long is sent again.
const COMMIT_PATIENCE: Duration = Duration::from_secs(120);

/// Tells the engine what became of a unit: `true`, the aggregator has it; `false`, it refused it for good. Resolves to `false` when nobody
/// listens any more.
pub type Tell = Arc<dyn Fn(UnitId, bool) -> BoxFuture<'static, bool> + Send + Sync>;

/// The way to one aggregator.
pub struct Bridge {
    url: Url,
    client: Client,
    store: Arc<dyn Store>,
    shared: Shared,
    tell: Tell,
    clock: Clock,
}

/// What came of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The aggregator has it. `known`: it had it before.
    Taken { note: String, known: bool },
    /// It does not want it, ever.
    Refused { note: String },
    /// It may want it later, or was not reached. `after`: it said that it wants nothing before that. `answered`: it said something whole.
    Again { note: String, after: Option<Duration>, answered: bool },
}

/// A row's place in the order in which the store lists what is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    epoch: u64,
    unit: UnitId,
}

impl Place {
    fn of(row: &OutboxRow) -> Self {
        Self { epoch: row.epoch, unit: row.unit }
    }
}

/// What is remembered of a row.
#[derive(Debug, Clone, Copy)]
enum Stand {
    /// A request is on its way.
    InFlight,
    /// The next try is not before this.
    Later { at: Instant },
    /// The engine was told; the commit is awaited until then. `marked`: the row counts the try that was refused.
    Told { until: Instant, marked: bool },
}

impl Bridge {
    /// A bridge to this address.
    pub fn new(url: Url, store: Arc<dyn Store>, shared: Shared, tell: Tell) -> anyhow::Result<Self> {
        let client = client(&url, &shared.identity().agent)?;
        shared.set_bridge(|view| view.configured = true);
        Ok(Self { url, client, store, shared, tell, clock: Clock::new() })
    }

    /// Delivers until `stop` is done; requests that are then in flight are given up and repeated after the next start.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut stands: BTreeMap<Place, Stand> = BTreeMap::new();
        let mut running: JoinSet<(Place, u32, Duration, Outcome)> = JoinSet::new();
        let mut trouble = Trouble::default();
        let mut pace = Pace::default();
        let mut next_poll = Instant::now();
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return,
                Some(done) = running.join_next() => {
                    let Ok((place, attempts, took, outcome)) = done else { continue };
                    self.show(&outcome, pace.add(took));
                    let settled = |taken: bool, note: String| self.settled(place.unit, taken, note);
                    let stand = match outcome {
                        Outcome::Taken { note, .. } => settled(true, note).await,
                        Outcome::Refused { note } => settled(false, note).await,
                        Outcome::Again { note, after, .. } => {
                            let quiet = trouble.met(after);
                            Some(self.later(place.unit, note, jitter(attempts).max(quiet)).await)
                        }
                    };
                    match stand {
                        None => return,
                        Some(Stand::Later { .. }) => {}
                        Some(_) => {
                            trouble = Trouble::default();
                            next_poll = next_poll.min(Instant::now() + POLL_BUSY);
                        }
                    }
                    stands.extend(stand.map(|stand| (place, stand)));
                }
                () = sleep_until(next_poll) => {
                    next_poll = Instant::now() + POLL;
                    if self.shared.store_stopped() {
                        continue;
                    }
                    if let Some(until) = trouble.quiet_until {
                        next_poll = next_poll.min(until);
                        if until > Instant::now() {
                            continue;
                        }
                    }
                    let room = if trouble.periods > 0 { 1 } else { IN_FLIGHT_MAX };
                    for row in self.due(&mut stands, room.saturating_sub(running.len())).await {
                        let (place, attempts) = (Place::of(&row), row.attempts);
                        stands.insert(place, Stand::InFlight);
                        let (client, url) = (self.client.clone(), self.url.clone());
                        count(&self.shared.counters().bridge_sent);
                        running.spawn(async move {
                            let began = Instant::now();
                            let outcome = post(&client, url, &place.unit.to_hex(), row.text).await;
                            (place, attempts, began.elapsed(), outcome)
                        });
                    }
                }
            }
        }
    }

    /// For people and for readiness.
    fn show(&self, outcome: &Outcome, (requests, p50_ms, p99_ms): (usize, u64, u64)) {
        let counters = self.shared.counters();
        let now = self.clock.now();
        match outcome {
            Outcome::Taken { known: true, .. } => count(&counters.bridge_known),
            Outcome::Again { answered: false, .. } => count(&counters.bridge_unanswered),
            _ => {}
        }
        self.shared.set_bridge(|view| {
            (view.requests, view.p50_ms, view.p99_ms) = (requests, p50_ms, p99_ms);
            if let Outcome::Again { note, .. } = outcome {
                view.failing_since.get_or_insert(now);
                view.problem = Some(note.clone());
            } else {
                (view.last_settled, view.failing_since, view.problem) = (Some(now), None, None);
            }
        });
    }

    async fn later(&self, unit: UnitId, note: String, wait: Duration) -> Stand {
        count(&self.shared.counters().bridge_retries);
        self.mark(unit, note.clone()).await;
        tracing::debug!(%unit, note, pause_ms = wait.as_millis() as u64, "the aggregator did not take a receipt yet");
        Stand::Later { at: Instant::now() + wait }
    }

    /// Tells the engine and counts; `None` when nobody listens any more.
    async fn settled(&self, unit: UnitId, taken: bool, note: String) -> Option<Stand> {
        let counters = self.shared.counters();
        let marked = if taken {
            count(&counters.bridge_delivered);
            false
        } else {
            count(&counters.bridge_refused);
            tracing::warn!(%unit, note, "the aggregator refused a receipt for good; `/v1/outbox?state=dead` lists such");
            self.mark(unit, note).await
        };
        (self.tell)(unit, taken).await.then(|| Stand::Told { until: Instant::now() + COMMIT_PATIENCE, marked })
    }

    /// Whether the row counts the try now.
    async fn mark(&self, unit: UnitId, note: String) -> bool {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || store.mark_attempt(&unit, Clock::new().now(), &note)).await;
        if let Ok(Err(fault)) = &done {
            tracing::warn!(%fault, "a delivery attempt could not be noted");
        }
        matches!(done, Ok(Ok(())))
    }

    /// At most `room` rows to send now, oldest epoch first. Forgets what says nothing any more.
    async fn due(&self, stands: &mut BTreeMap<Place, Stand>, room: usize) -> Vec<OutboxRow> {
        let now = Instant::now();
        stands.retain(|_, stand| match stand {
            Stand::InFlight => true,
            Stand::Later { at } | Stand::Told { until: at, .. } => *at > now,
        });
        let mut ready = Vec::new();
        let mut seen = BTreeSet::new();
        let mut after = None;
        let mut whole = false;
        while !whole && ready.len() < room && seen.len() < REMEMBERED_MAX {
            let store = Arc::clone(&self.store);
            let page = match tokio::task::spawn_blocking(move || store.outbox(OutboxState::Due, after.as_ref(), PAGE_MAX)).await {
                Ok(Ok(page)) => page,
                Ok(Err(fault)) => {
                    tracing::warn!(%fault, "the outbox could not be read");
                    break;
                }
                Err(_) => break,
            };
            whole = page.next.is_none();
            after = page.next;
            if seen.is_empty() {
                let oldest = page.rows.first().and_then(stamp);
                self.shared.set_bridge(|view| {
                    view.oldest_due = oldest;
                    if page.rows.is_empty() {
                        // Nothing is left that could show whether it lives.
                        (view.failing_since, view.problem) = (None, None);
                    }
                });
            }
            for row in page.rows {
                if ready.len() == room {
                    whole = false;
                    break;
                }
                let place = Place::of(&row);
                seen.insert(place);
                // A row counts its tries anew when its state changes: this one died and was replayed between two looks at what is due.
                if row.attempts == 0 && matches!(stands.get(&place), Some(Stand::Told { marked: true, .. })) {
                    stands.remove(&place);
                }
                if !stands.contains_key(&place) && !row.text.is_empty() && stands.len() + ready.len() < REMEMBERED_MAX {
                    ready.push(row);
                }
            }
        }
        // What was told and is due no more has been committed.
        let last = seen.last().copied();
        let passed = |place: &Place| whole || last.is_some_and(|last| *place <= last);
        stands.retain(|place, stand| !passed(place) || seen.contains(place) || matches!(stand, Stand::InFlight));
        ready
    }
}

/// A receipt's stamp.
fn stamp(row: &OutboxRow) -> Option<Millis> {
    match codec::receipt_from_text(row.text.as_bytes()) {
        Ok(AnyReceipt::V2(receipt)) => Some(receipt.timestamp),
        _ => None,
    }
}

/// How long the newest requests took.
#[derive(Debug, Default)]
struct Pace(VecDeque<u64>);

impl Pace {
    /// Gives how many are known, their median and their 99th percentile, in milliseconds.
    fn add(&mut self, took: Duration) -> (usize, u64, u64) {
        if self.0.len() == AGES_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let mut sorted: Vec<u64> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let at = |percent: usize| sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)];
        (sorted.len(), at(50), at(99))
    }
}

/// How the aggregator fares as a whole: while it is in trouble it gets a request at a time, and none while it is left alone.
#[derive(Debug, Default)]
struct Trouble {
    /// Periods of it since the last receipt was settled: requests that fail together are one.
    periods: u32,
    quiet_until: Option<Instant>,
}

impl Trouble {
    /// A request failed; gives how long the aggregator is left alone for it.
    fn met(&mut self, after: Option<Duration>) -> Duration {
        let now = Instant::now();
        if self.quiet_until.is_none_or(|until| until <= now) {
            self.periods = self.periods.saturating_add(1);
        }
        let quiet = after.unwrap_or_else(|| jitter(self.periods - 1));
        self.quiet_until = self.quiet_until.max(Some(now + quiet));
        quiet
    }
}

/// An HTTP client for this address: no redirects, bounded in time.
pub(crate) fn client(url: &Url, agent: &str) -> anyhow::Result<Client> {
    let mut client = Client::builder().redirect(redirect::Policy::none()).timeout(REQUEST_TIMEOUT).user_agent(agent);
    let local = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if local {
        // A proxy for the world is none for this machine.
        client = client.no_proxy();
    }
    client.build().context("the client for the aggregator could not be made")
}

/// Full jitter: anything up to twice the former bound, from [`BACKOFF_MIN`] to [`BACKOFF_MAX`].
pub(crate) fn jitter(attempts: u32) -> Duration {
    let bound = BACKOFF_MIN.saturating_mul(1 << attempts.min(7)).clamp(BACKOFF_MIN * 2, BACKOFF_MAX);
    rand::rng().random_range(BACKOFF_MIN..=bound)
}

/// Posts one receipt in text form under an idempotency key.
pub(crate) async fn post(client: &Client, url: Url, key: &str, text: String) -> Outcome {
    let request = client.post(url).header(CONTENT_TYPE, "application/json").header("Idempotency-Key", key).body(text);
    // The address may hold a password, the error's text may hold the address.
    let words = |fault: reqwest::Error| one_line(&format!("{:#}", anyhow::Error::from(fault.without_url())));
    let mut answer = match request.send().await {
        Ok(answer) => answer,
        Err(fault) => return Outcome::Again { note: format!("no answer: {}", words(fault)), after: None, answered: false },
    };
    let (status, after) = (answer.status(), retry_after(answer.headers(), SystemTime::now()));
    if status.is_redirection() {
        let to = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).map_or_else(|| "somewhere else".to_owned(), one_line);
        let note = format!("{}: it points to {to}, which is not followed: set --aggregator-url to the right address", status.as_u16());
        return Outcome::Again { note, after, answered: true };
    }
    let mut body = Vec::new();
    while body.len() < ANSWER_MAX {
        match answer.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(ANSWER_MAX - body.len())]),
            Ok(None) => break,
            // What is missing may say that the receipt was refused; the key makes a repetition harmless.
            Err(fault) if agrees(status) => {
                return Outcome::Again { note: format!("{}, and then: {}", status.as_u16(), words(fault)), after, answered: false };
            }
            Err(_) => break,
        }
    }
    judge(status, after, &body)
}

/// Whether a status says that the aggregator has the receipt, if the body does not say otherwise.
fn agrees(status: StatusCode) -> bool {
    status.is_success() || status == StatusCode::CONFLICT
}

fn judge(status: StatusCode, after: Option<Duration>, body: &[u8]) -> Outcome {
    // The original verifier's words; a body that is no JSON says nothing.
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let why = match &said["error"] {
        Value::Null => String::new(),
        Value::String(text) => format!(": {}", one_line(text)),
        other => format!(": {}", one_line(&other.to_string())),
    };
    let note = format!("{}{why}", status.as_u16());
    let no = said["ok"] == false || said["sig_ok"] == false;
    match status {
        _ if agrees(status) && no => Outcome::Refused { note },
        _ if agrees(status) => Outcome::Taken { note, known: status == StatusCode::CONFLICT },
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => Outcome::Again { note, after, answered: true },
        _ if status.is_client_error() => Outcome::Refused { note },
        // 5xx, and what no aggregator should say.
        _ => Outcome::Again { note, after, answered: true },
    }
}

/// `Retry-After`, in seconds or as a date, at most [`RETRY_AFTER_MAX`].
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let said = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match said.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(said).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_place() {
        let judge = |status: u16, body: &str| judge(StatusCode::from_u16(status).unwrap(), None, body.as_bytes());
        let taken = |o: &Outcome| matches!(o, Outcome::Taken { .. });
        let refused = |o: &Outcome| matches!(o, Outcome::Refused { .. });
        let again = |o: &Outcome| matches!(o, Outcome::Again { .. });
        for status in [200, 201, 202, 204, 409] {
            assert!(taken(&judge(status, "")), "{status}");
            assert!(taken(&judge(status, "{\"ok\":true,\"sig_ok\":true}")), "{status}");
            assert!(refused(&judge(status, "{\"ok\":false}")), "{status}");
            assert!(refused(&judge(status, "{\"ok\":true,\"sig_ok\":false}")), "{status}");
            assert!(refused(&judge(status, "{\"ok\":false,\"error\":{\"code\":7}}")), "{status}");
            assert!(taken(&judge(status, "not json")), "{status}");
        }
        for status in [408, 429, 500, 502, 503, 504, 301, 307] {
            assert!(again(&judge(status, "{\"ok\":false}")), "{status}");
        }
        for status in [400, 401, 403, 404, 405, 410, 413, 422, 451] {
            assert!(refused(&judge(status, "")), "{status}");
        }
    }

    #[test]
    fn pauses_grow_and_stay_within_their_bounds() {
        for attempts in 0..100 {
            for _ in 0..50 {
                let pause = jitter(attempts);
                assert!((BACKOFF_MIN..=BACKOFF_MAX).contains(&pause));
                assert!(pause <= BACKOFF_MIN * 2u32.saturating_pow(attempts.clamp(1, 7)), "{attempts}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_fail_together_are_one_trouble() {
        let mut trouble = Trouble::default();
        for _ in 0..8 {
            assert!(trouble.met(None) <= 2 * BACKOFF_MIN);
        }
        assert_eq!(trouble.periods, 1);
        assert_eq!(trouble.met(Some(Duration::from_secs(7))), Duration::from_secs(7));
        tokio::time::advance(Duration::from_secs(8)).await;
        trouble.met(None);
        assert_eq!(trouble.periods, 2);
    }

    #[test]
    fn retry_after_is_read_in_both_its_forms() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap();
        let said = |text: &str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]), now);
        assert_eq!(said("7"), Some(Duration::from_secs(7)));
        assert_eq!(said("Wed, 21 Oct 2015 07:29:30 GMT"), Some(Duration::from_secs(90)));
        assert_eq!(said("Wed, 21 Oct 2015 07:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(said("1000000"), Some(RETRY_AFTER_MAX));
        assert_eq!(said("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
