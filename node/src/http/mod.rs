//! The HTTP interface: health, metrics, what the node knows, and `POST /verify`.
//!
//! ```text
//!   state::Shared (view, counters) ─┐
//!   Store (reads, on blocking threads) ┼─▶ JSON          nothing here changes the node, but for its miner's pause and replays
//!   a CPU backend of its own ───────┘
//! ```
//!
//! It listens on loopback unless a token is set. Connections, requests, bodies, pages and recomputation are bounded; what is over a bound
//! gets an error, as JSON with one sentence. 256-bit numbers are decimal strings, hashes lower-case hex.

mod dashboard;
mod devices;
mod events;
mod health;
mod listen;
mod metrics;
mod mining;
mod process;
mod receipts;
mod status;
mod verify;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::future::BoxFuture;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tops_compute::queue::LaneReport;
use tops_protocol::{NetworkSpec, U256, UnitId};
use tops_store::{Store, StoreFault};

use crate::config::Secret;
use crate::settings::one_line;
use crate::state::Shared;

pub use verify::Checker;

/// The largest body that is read; a longer one gets 413.
pub const BODY_MAX: usize = 1024 * 1024;
/// Requests that are worked on at once; a further one gets 503.
pub const REQUESTS_MAX: usize = 64;
/// Open connections; a further one waits in the system's queue.
pub const CONNECTIONS_MAX: usize = 256;
/// Open event streams; a further one gets 503. They take no request's place, but a connection each.
pub const EVENT_STREAMS_MAX: usize = 32;
/// A request that takes longer gets 503; it is longer than any recomputation within its cap.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection on which nothing came for so long is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// A request's head must come within this time, however its bytes are spread.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// After the word to stop, requests that are being answered get so long.
pub const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// Rows of a page unless the client asks for fewer or more; the store has its own bound.
pub const PAGE_DEFAULT: usize = 100;

/// Has a dead letter sent again, or forgotten; resolves to `false` when the node stops.
pub type Replay = Arc<dyn Fn(UnitId) -> BoxFuture<'static, bool> + Send + Sync>;

/// What the devices do, asked anew for every answer.
pub type Devices = Arc<dyn Fn() -> Vec<LaneReport> + Send + Sync>;

/// What the interface shows.
pub struct Parts {
    /// The network's numbers.
    pub network: NetworkSpec,
    /// The view and the counters.
    pub shared: Shared,
    /// The rows.
    pub store: Arc<dyn Store>,
    /// The devices.
    pub devices: Devices,
    /// Has dead letters sent again.
    pub replay: Replay,
    /// Has dead letters forgotten.
    pub discard: Replay,
    /// Recomputes receipts for `POST /verify`.
    pub checker: Checker,
    /// What clients must show.
    pub token: Option<Secret>,
    /// The signer of v1 receipts, 33 or 65 bytes.
    pub verify_key: Option<Vec<u8>>,
}

#[derive(Clone)]
struct Api(Arc<Inner>);

struct Inner {
    parts: Parts,
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    sensors: Arc<devices::Sensors>,
}

impl std::ops::Deref for Api {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

impl Api {
    /// Reads the store off the async threads.
    async fn read<T: Send + 'static>(&self, read: impl FnOnce(&dyn Store) -> Result<T, StoreFault> + Send + 'static) -> Result<T, Problem> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || read(&*store)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(fault)) => Err(Problem::own(fault.to_string())),
            Err(_) => Err(Problem::own("reading the store failed".into())),
        }
    }
}

/// Why a request has no answer: a status and one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    status: StatusCode,
    sentence: String,
}

impl Problem {
    fn new(status: StatusCode, sentence: impl Into<String>) -> Self {
        Self { status, sentence: sentence.into() }
    }
    fn bad(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, sentence)
    }
    fn missing(sentence: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, sentence)
    }
    fn own(sentence: String) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, sentence)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(json!({ "error": self.sentence }))).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

type Reply = Result<axum::Json<Value>, Problem>;

/// A 256-bit number as JSON holds it.
fn decimal(number: U256) -> Value {
    json!(number.to_string())
}

/// The parameters of a query string. Every one must be known, at most once, and short.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query(BTreeMap<String, String>);

impl Query {
    /// Reads a raw query string.
    fn parse(raw: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut all = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(raw.unwrap_or("").as_bytes()) {
            if !known.contains(&&*name) {
                let known = if known.is_empty() { "none is known here".into() } else { format!("there are {}", known.join(", ")) };
                return Err(Problem::bad(format!("unknown parameter `{}`: {known}", one_line(&name))));
            }
            if all.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(Problem::bad("a parameter is there twice"));
            }
        }
        Ok(Self(all))
    }

    fn get<T>(&self, name: &str, what: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Problem> {
        let Some(text) = self.0.get(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        parse(text).map(Some).ok_or_else(|| Problem::bad(format!("`{name}` must be {what}")))
    }

    fn limit(&self) -> Result<usize, Problem> {
        let limit = self.get("limit", &format!("a number in 1..={}", tops_store::PAGE_MAX), |t| {
            t.parse().ok().filter(|n| (1..=tops_store::PAGE_MAX).contains(n))
        })?;
        Ok(limit.unwrap_or(PAGE_DEFAULT))
    }
}

/// The routes over these parts.
pub fn router(parts: Parts) -> Router {
    let sensors = Arc::new(devices::Sensors::new(parts.devices.clone()));
    let (requests, streams) = (Arc::new(Semaphore::new(REQUESTS_MAX)), Arc::new(Semaphore::new(EVENT_STREAMS_MAX)));
    let api = Api(Arc::new(Inner { parts, requests, streams, sensors }));
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/v1/status", get(status::status))
        .route("/v1/head", get(status::head))
        .route("/v1/heads", get(status::heads))
        .route("/v1/peers", get(status::peers))
        .route("/v1/devices", get(devices::devices))
        .route("/v1/rejections", get(status::rejections))
        .route("/v1/events", get(events::events))
        .route("/v1/mining", get(mining::show).post(mining::set))
        .route("/v1/ledger", get(receipts::ledger))
        .route("/v1/outbox", get(receipts::outbox))
        .route("/v1/outbox/replay", post(receipts::replay))
        .route("/v1/outbox/drop", post(receipts::discard))
        .route("/v1/receipts", get(receipts::list))
        .route("/v1/receipts/{id}", get(receipts::one))
        .route("/verify", post(verify::verify))
        .merge(dashboard::routes())
        .fallback(|| async { Problem::missing("there is nothing at this path") })
        .method_not_allowed_fallback(|| async { Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path takes another method") })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(middleware::from_fn_with_state(api.clone(), guard))
        .with_state(api)
}

/// Token, number of requests, time.
async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    if let Some(token) = &api.token
        && request.uri().path() != "/healthz"
        && !dashboard::is_page(request.uri().path())
        && !shows(&request, token)
    {
        return Problem::new(StatusCode::UNAUTHORIZED, "show the API token: Authorization: Bearer …").into_response();
    }
    if request.uri().path() == "/healthz" {
        // Whoever keeps all places busy must not make a supervisor think that the node is dead.
        return next.run(request).await;
    }
    let Ok(_permit) = api.0.requests.clone().try_acquire_owned() else {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests at once: try again").into_response();
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "this took too long: try again").into_response(),
    }
}

/// Whether a request shows the token. Digests are compared, in a time that does not depend on where they differ.
fn shows(request: &Request, token: &Secret) -> bool {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.as_bytes().strip_prefix(b"Bearer "));
    given.is_some_and(|given| blake3::hash(given) == blake3::hash(token.expose().as_bytes()))
}

/// Serves until `stop` is done, then finishes what is being answered, within [`LAST_ANSWERS`].
pub async fn serve(listener: TcpListener, router: Router, stop: impl Future<Output = ()> + Send + 'static) {
    let mut listener = listen::Bounded::new(listener, CONNECTIONS_MAX, IDLE_TIMEOUT);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let open = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let connection = tokio::select! {
            connection = listener.accept() => connection,
            () = &mut stop => break,
        };
        let served = open.watch(http.serve_connection(TokioIo::new(connection), TowerToHyperService::new(router.clone())));
        tokio::spawn(async move {
            if let Err(fault) = served.await {
                tracing::trace!(%fault, "an HTTP connection ended");
            }
        });
    }
    drop(listener);
    // What takes longer ends with the process.
    let _ = tokio::time::timeout(LAST_ANSWERS, open.shutdown()).await;
}
