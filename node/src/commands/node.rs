//! The running node that a command asks: where it answers, and its answers or one sentence on why there is none.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::cli::Failure;
use crate::config::{self, Secret};
use crate::settings::{Layers, one_line};

/// How long the node may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// A node and how to ask it.
pub struct Node {
    address: SocketAddr,
    token: Option<Secret>,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Node {
    /// The node that the settings name (`--http`, `--api-token`); a node that listens everywhere is asked here.
    pub fn of(layers: &Layers) -> Result<Self, Failure> {
        let (address, token) = config::http_choice(layers)?;
        let Some(address) = address else { return Err(Failure::Usage("say with --http where the node answers: it is off".into())) };
        Ok(Self::at(address, token, PATIENCE)?)
    }

    /// A node at this address.
    pub fn at(address: SocketAddr, token: Option<Secret>, patience: Duration) -> anyhow::Result<Self> {
        let host = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let client = Client::builder().no_proxy().timeout(patience).build().context("the client could not be made")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the system gives no thread")?;
        Ok(Self { address: SocketAddr::new(host, address.port()), token, client, runtime })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its answer to a question.
    pub fn get(&self, path: &str, parameters: &[(&str, String)]) -> Result<Value, Failure> {
        let (status, body) = self.answer(self.client.get(self.url(path)).query(parameters))?;
        self.judged(status, body)
    }

    /// Its answer to a wish.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let (status, body) = self.answer(self.client.post(self.url(path)).json(body))?;
        self.judged(status, body)
    }

    /// What it answers, whatever the status.
    pub fn look(&self, path: &str) -> Result<(StatusCode, Value), Failure> {
        self.answer(self.client.get(self.url(path)))
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn answer(&self, request: RequestBuilder) -> Result<(StatusCode, Value), Failure> {
        let base = self.address;
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        };
        self.runtime.block_on(async {
            let answer = request.send().await.map_err(|e| {
                if e.is_timeout() {
                    anyhow!("what listens on {base} does not answer: if it is a node it is stuck, so look at its log and restart it")
                } else if e.is_connect() {
                    anyhow!("no node answers on {base}: start one with `tops-node`, or say with --http where yours answers")
                } else {
                    anyhow!("what answers on {base} is no node: say with --http where yours answers")
                }
            })?;
            let status = answer.status();
            let body: Value =
                answer.json().await.map_err(|_| anyhow!("what answers on {base} is no node: say with --http where yours answers"))?;
            Ok((status, body))
        })
    }

    fn judged(&self, status: StatusCode, body: Value) -> Result<Value, Failure> {
        if status.is_success() {
            return Ok(body);
        }
        let why = one_line(body["error"].as_str().unwrap_or("it gave no reason"));
        Err(match status {
            StatusCode::UNAUTHORIZED if self.token.is_some() => Failure::Usage("the node has another API token than the one given".into()),
            StatusCode::UNAUTHORIZED => Failure::Usage("the node wants its API token: give it with --api-token or TOPS_API_TOKEN".into()),
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND => Failure::Usage(why),
            _ => anyhow!("the node on {} says: {why}", self.address).into(),
        })
    }
}
