//! `tops-node ledger|receipts|heads|peers|outbox`: ask a running node over HTTP, and print its answer as a table or as it came.
//!
//! One file for the five: they differ in a path and in columns. The node is the one that the settings name (`--http`, `--api-token`).

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::cli::{Answer, Failure};
use crate::config;
use crate::settings::{Layers, one_line};

/// How long the node may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pages that `--all` follows at most; a longer list is cut, and that is said.
const PAGES_MAX: usize = 10_000;

/// Which pages to fetch.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Paging {
    /// Rows to fetch, at most 256.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=256))]
    limit: u16,
    /// Follow the list to its end.
    #[arg(long)]
    all: bool,
}

/// Arguments of `ledger`.
#[derive(Debug, clap::Args)]
pub struct Ledger {
    /// Only this miner: its compressed key as hex.
    #[arg(long, value_name = "HEX")]
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
    #[arg(long, value_name = "HEX")]
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

/// Arguments of `outbox`.
#[derive(Debug, clap::Args)]
pub struct Outbox {
    /// waiting, due, delivered, dead or void.
    #[arg(long, default_value = "due")]
    state: String,
    /// Send dead letters again: one, by its unit, or `all`.
    #[arg(long, value_name = "UNIT|all", conflicts_with_all = ["state", "limit", "all"])]
    replay: Option<String>,
    #[command(flatten)]
    paging: Paging,
}

/// A list that a node has: where, under which name, and which columns people want.
struct List {
    path: &'static str,
    rows: &'static str,
    /// The field of an answer that names the next page, and the parameter that takes it.
    next: Option<(&'static str, &'static str)>,
    columns: &'static [&'static str],
    parameters: Vec<(&'static str, String)>,
    paging: Paging,
}

/// Who earned what.
pub fn ledger(arguments: &Ledger, layers: &Layers) -> Result<Answer, Failure> {
    let parameters = arguments.miner.iter().map(|m| ("miner", m.clone())).collect();
    let columns = &["miner", "credit_ops", "shares", "heads", "void_shares", "banned"];
    ask(
        List { path: "/v1/ledger", rows: "ledger", next: Some(("next", "cursor")), columns, parameters, paging: arguments.paging.clone() },
        layers,
    )
}

/// Stored shares.
pub fn receipts(arguments: &Receipts, layers: &Layers) -> Result<Answer, Failure> {
    let epoch = arguments.epoch.map(|e| ("epoch", e.to_string()));
    let parameters = arguments.miner.iter().map(|m| ("miner", m.clone())).chain(epoch).collect();
    let columns = &["epoch", "state", "own", "unit", "miner"];
    ask(
        List {
            path: "/v1/receipts",
            rows: "receipts",
            next: Some(("next", "cursor")),
            columns,
            parameters,
            paging: arguments.paging.clone(),
        },
        layers,
    )
}

/// The main chain downwards.
pub fn heads(arguments: &Heads, layers: &Layers) -> Result<Answer, Failure> {
    let parameters = arguments.from.iter().map(|h| ("from", h.to_string())).collect();
    let columns = &["height", "root", "miner", "timestamp_ms", "audited"];
    ask(
        List { path: "/v1/heads", rows: "heads", next: Some(("next_from", "from")), columns, parameters, paging: arguments.paging.clone() },
        layers,
    )
}

/// The connected peers.
pub fn peers(layers: &Layers) -> Result<Answer, Failure> {
    let columns = &["peer_id", "agent", "height", "in_step", "ping_ms", "score", "address"];
    ask(List { path: "/v1/peers", rows: "peers", next: None, columns, parameters: Vec::new(), paging: Paging::default() }, layers)
}

/// The way to the aggregator.
pub fn outbox(arguments: &Outbox, layers: &Layers) -> Result<Answer, Failure> {
    if let Some(which) = &arguments.replay {
        let body = if which == "all" { json!({ "all": true }) } else { json!({ "unit": which }) };
        let (base, token) = node(layers)?;
        let answer = wait_for(post(base, token.as_ref().map(config::Secret::expose), "/v1/outbox/replay", &body))?;
        return Ok(Answer::yes(format!("{} will be sent again\n", answer["replayed"]), answer));
    }
    let parameters = vec![("state", arguments.state.clone())];
    let columns = &["epoch", "unit", "state", "attempts", "note"];
    ask(
        List { path: "/v1/outbox", rows: "outbox", next: Some(("next", "cursor")), columns, parameters, paging: arguments.paging.clone() },
        layers,
    )
}

/// Where the node answers, and what it wants to see.
fn node(layers: &Layers) -> Result<(SocketAddr, Option<config::Secret>), Failure> {
    let (address, token) = config::http_choice(layers)?;
    let Some(address) = address else { return Err(Failure::Usage("say with --http where the node answers: it is off".into())) };
    // A node that listens everywhere is asked here.
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    Ok((SocketAddr::new(host, address.port()), token))
}

fn wait_for<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the system gives no thread")?;
    runtime.block_on(work)
}

fn ask(list: List, layers: &Layers) -> Result<Answer, Failure> {
    let (base, token) = node(layers)?;
    let (rows, cut) = wait_for(fetch(&list, base, token.as_ref().map(config::Secret::expose)))?;
    let mut text = table(list.columns, &rows);
    if cut {
        text.push_str("there is more: say --all or a larger --limit\n");
    }
    let mut json = json!({ "more": cut });
    json[list.rows] = Value::Array(rows);
    Ok(Answer::yes(text, json))
}

/// What the node answers to a request, or its reason.
async fn send(request: RequestBuilder, base: SocketAddr, token: Option<&str>) -> Result<Value, Failure> {
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let answer = request.send().await.with_context(|| format!("no node answers on {base}: start one, or name another with --http"))?;
    let status = answer.status();
    let body: Value = answer.json().await.with_context(|| format!("what answers on {base} is no node"))?;
    if status.is_success() {
        return Ok(body);
    }
    let why = one_line(body["error"].as_str().unwrap_or("the node gave no reason"));
    let usage = [StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND].contains(&status);
    Err(if usage { Failure::Usage(why) } else { anyhow::anyhow!("the node says: {why}").into() })
}

fn client() -> Result<Client, Failure> {
    Ok(Client::builder().no_proxy().timeout(PATIENCE).build().context("the client could not be made")?)
}

async fn post(base: SocketAddr, token: Option<&str>, path: &str, body: &Value) -> Result<Value, Failure> {
    send(client()?.post(format!("http://{base}{path}")).json(body), base, token).await
}

/// The rows, and whether there are more.
async fn fetch(list: &List, base: SocketAddr, token: Option<&str>) -> Result<(Vec<Value>, bool), Failure> {
    let client = client()?;
    let (mut rows, mut parameters) = (Vec::new(), list.parameters.clone());
    if list.next.is_some() {
        parameters.push(("limit", if list.paging.all { "256".into() } else { list.paging.limit.to_string() }));
    }
    for _ in 0..PAGES_MAX {
        let mut page = send(client.get(format!("http://{base}{}", list.path)).query(&parameters), base, token).await?;
        if let Value::Array(page) = page[list.rows].take() {
            rows.extend(page);
        }
        let next = list.next.and_then(|(field, parameter)| match &page[field] {
            Value::String(next) => Some((parameter, next.clone())),
            Value::Number(next) => Some((parameter, next.to_string())),
            _ => None,
        });
        let Some((parameter, next)) = next else { return Ok((rows, false)) };
        if !list.paging.all {
            return Ok((rows, true));
        }
        parameters.retain(|(name, _)| *name != parameter);
        parameters.push((parameter, next));
    }
    Ok((rows, true))
}

/// Columns as wide as their widest value.
fn table(columns: &[&str], rows: &[Value]) -> String {
    let cell = |row: &Value, column: &str| match &row[column] {
        Value::String(text) => one_line(text),
        Value::Null => "-".into(),
        other => other.to_string(),
    };
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|c| (*c).to_owned()).collect()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect()));
    let width = |i: usize| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_on_one_line_a_row() {
        let rows = [json!({ "a": "x\ny", "b": 7 }), json!({ "a": "longer", "b": null })];
        assert_eq!(table(&["a", "b"], &rows), "a       b\nx y     7\nlonger  -\n");
    }
}
