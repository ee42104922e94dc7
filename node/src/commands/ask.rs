//! `tops-node ledger|receipts|heads|peers`: ask a running node over HTTP, and print its answer as a table or as it came.
//!
//! One file for the four: they differ in a path and in columns. The node is the one that the settings name (`--http`, `--api-token`).

use serde_json::{Value, json};

use super::node::Node;
use super::table::{Column, Form, now_ms, table};
use crate::cli::{Answer, Failure};
use crate::settings::Layers;
use tops_protocol::PublicKey;

/// Pages that `--all` follows at most; a longer list is cut, and that is said.
const PAGES_MAX: usize = 10_000;

/// Which rows to fetch, and how to show them.
#[derive(Debug, Clone, clap::Args)]
pub struct Paging {
    /// Rows to fetch, at most 256.
    #[arg(long, default_value_t = 20, value_name = "ROWS", value_parser = clap::value_parser!(u16).range(1..=256))]
    limit: u16,
    /// Follow the list to its end.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Do not shorten ids and texts in the table.
    #[arg(long)]
    full: bool,
}

fn miner(text: &str) -> Result<String, String> {
    let key = text.strip_prefix("0x").unwrap_or(text).to_ascii_lowercase();
    PublicKey::from_hex(&key).map(|_| key).map_err(|_| "a miner is a compressed public key, 66 hex digits, as `tops-node key show` prints it".into())
}

/// Arguments of `ledger`.
#[derive(Debug, clap::Args)]
pub struct Ledger {
    /// Only this miner: its compressed key as hex.
    #[arg(long, value_name = "HEX", value_parser = miner)]
    miner: Option<String>,
    #[command(flatten)]
    paging: Paging,
}

/// Arguments of `receipts`.
#[derive(Debug, clap::Args)]
pub struct Receipts {
    /// Only this epoch.
    #[arg(long)]
    epoch: Option<u64>,
    /// Only this miner: its compressed key as hex.
    #[arg(long, value_name = "HEX", value_parser = miner)]
    miner: Option<String>,
    #[command(flatten)]
    paging: Paging,
}

/// Arguments of `heads`.
#[derive(Debug, clap::Args)]
pub struct Heads {
    /// From this height down; the tip unless told.
    #[arg(long, value_name = "HEIGHT")]
    from: Option<u64>,
    #[command(flatten)]
    paging: Paging,
}

/// Arguments of `peers`.
#[derive(Debug, clap::Args)]
pub struct Peers {
    /// Do not shorten ids and texts in the table.
    #[arg(long)]
    full: bool,
}

/// A list that a node has: where, under which name, and which columns people want.
pub(super) struct List {
    pub(super) path: &'static str,
    pub(super) rows: &'static str,
    /// The field of an answer that names the next page, and the parameter that takes it.
    pub(super) next: Option<(&'static str, &'static str)>,
    pub(super) columns: &'static [Column],
    pub(super) parameters: Vec<(&'static str, String)>,
    pub(super) paging: Paging,
    /// What is said when there are no rows.
    pub(super) empty: String,
}

/// Who earned what.
pub fn ledger(arguments: &Ledger, layers: &Layers) -> Result<Answer, Failure> {
    let empty = if arguments.miner.is_some() { "this miner has earned nothing at this node" } else { "nobody has earned anything yet" };
    List {
        path: "/v1/ledger",
        rows: "ledger",
        next: Some(("next", "cursor")),
        columns: &[
            ("miner", "miner", Form::Id),
            ("credit", "credit_ops", Form::Ops),
            ("shares", "shares", Form::Number),
            ("heads", "heads", Form::Number),
            ("void", "void_shares", Form::Number),
            ("banned", "banned", Form::YesNo),
        ],
        parameters: arguments.miner.iter().map(|m| ("miner", m.clone())).collect(),
        paging: arguments.paging.clone(),
        empty: empty.into(),
    }
    .ask(layers)
}

/// Stored shares.
pub fn receipts(arguments: &Receipts, layers: &Layers) -> Result<Answer, Failure> {
    let epoch = arguments.epoch.map(|e| ("epoch", e.to_string()));
    let empty = if arguments.epoch.is_some() || arguments.miner.is_some() {
        "this node keeps no such receipt: it may be older than --retain-epochs"
    } else {
        "this node keeps no receipt yet"
    };
    List {
        path: "/v1/receipts",
        rows: "receipts",
        next: Some(("next", "cursor")),
        columns: &[
            ("epoch", "epoch", Form::Number),
            ("found", "timestamp_ms", Form::Age),
            ("state", "state", Form::Text),
            ("own", "own", Form::YesNo),
            ("unit", "unit", Form::Id),
            ("miner", "miner", Form::Id),
        ],
        parameters: arguments.miner.iter().map(|m| ("miner", m.clone())).chain(epoch).collect(),
        paging: arguments.paging.clone(),
        empty: empty.into(),
    }
    .ask(layers)
}

/// The main chain downwards.
pub fn heads(arguments: &Heads, layers: &Layers) -> Result<Answer, Failure> {
    List {
        path: "/v1/heads",
        rows: "heads",
        next: Some(("next_from", "from")),
        columns: &[
            ("height", "height", Form::Number),
            ("found", "timestamp_ms", Form::Age),
            ("root", "root", Form::Id),
            ("miner", "miner", Form::Id),
            ("audited", "audited", Form::YesNo),
        ],
        parameters: arguments.from.iter().map(|h| ("from", h.to_string())).collect(),
        paging: arguments.paging.clone(),
        empty: "the chain has no heads yet but its genesis".into(),
    }
    .ask(layers)
}

/// The connected peers.
pub fn peers(arguments: &Peers, layers: &Layers) -> Result<Answer, Failure> {
    List {
        path: "/v1/peers",
        rows: "peers",
        next: None,
        columns: &[
            ("peer", "peer_id", Form::Peer),
            ("", "outbound", Form::Direction),
            ("for", "connected_secs", Form::Span),
            ("agent", "agent", Form::Text),
            ("height", "height", Form::Number),
            ("in step", "in_step", Form::YesNo),
            ("ping", "ping_ms", Form::Ms),
            ("score", "score", Form::Decimal),
            ("address", "address", Form::Text),
        ],
        parameters: Vec::new(),
        paging: Paging { limit: 256, all: false, full: arguments.full },
        empty: "no peer is connected: `tops-node doctor` says what may be wrong".into(),
    }
    .ask(layers)
}

impl List {
    fn ask(self, layers: &Layers) -> Result<Answer, Failure> {
        let node = Node::of(layers)?;
        let (rows, cut) = self.fetch(&node)?;
        Ok(self.answer(rows, cut))
    }

    /// The rows as a table and as they came.
    pub(super) fn answer(&self, rows: Vec<Value>, cut: bool) -> Answer {
        let mut text =
            if rows.is_empty() { format!("{}\n", self.empty) } else { table(self.columns, &rows, self.paging.full, now_ms()) };
        if cut {
            text.push_str("there is more: say --all or a larger --limit\n");
        }
        let mut json = json!({ "more": cut });
        json[self.rows] = Value::Array(rows);
        Answer::yes(text, json)
    }

    /// The rows, and whether there are more.
    pub(super) fn fetch(&self, node: &Node) -> Result<(Vec<Value>, bool), Failure> {
        let (mut rows, mut parameters) = (Vec::new(), self.parameters.clone());
        if self.next.is_some() {
            parameters.push(("limit", if self.paging.all { "256".into() } else { self.paging.limit.to_string() }));
        }
        for _ in 0..PAGES_MAX {
            let mut page = node.get(self.path, &parameters)?;
            if let Value::Array(page) = page[self.rows].take() {
                rows.extend(page);
            }
            let next = self.next.and_then(|(field, parameter)| match &page[field] {
                Value::String(next) => Some((parameter, next.clone())),
                Value::Number(next) => Some((parameter, next.to_string())),
                _ => None,
            });
            let Some((parameter, next)) = next else { return Ok((rows, false)) };
            if !self.paging.all {
                return Ok((rows, true));
            }
            parameters.retain(|(name, _)| *name != parameter);
            parameters.push((parameter, next));
        }
        Ok((rows, true))
    }
}

impl Paging {
    /// A screenful, shortened.
    pub(super) fn shown() -> Self {
        Self { limit: 20, all: false, full: false }
    }
    /// To the end of a list.
    pub(super) fn whole() -> Self {
        Self { limit: 256, all: true, full: true }
    }
}
