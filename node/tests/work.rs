//! The solo worker as a process, against a receiver that checks every receipt that it gets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use tops_compute::backend::Backend;
use tops_compute::cpu::CpuBackend;
use tops_node::check::{self, Recomputed, Report};
use tops_protocol::work::v1::Variant;

const SECRET: &str = "435e01b492c93aa9259378696948c81c04059f3f271dab34569efa766a186988";
const PUBLIC: &str = "03967fc2d3f423ef8a417e1faca8ba1436a5bdb51e7c379882b254ae16069852bd";

#[derive(Clone)]
struct Receiver {
    cpu: Arc<dyn Backend>,
    got: Arc<Mutex<Vec<Report>>>,
    statuses: Arc<Mutex<Vec<u16>>>,
}

async fn receive(State(receiver): State<Receiver>, body: String) -> StatusCode {
    if let Some(status) = receiver.statuses.lock().unwrap().pop() {
        return StatusCode::from_u16(status).unwrap();
    }
    let key = hex::decode(PUBLIC).unwrap();
    let report = check::check(body.as_bytes(), Some(&key), &Recomputed(&*receiver.cpu)).unwrap();
    receiver.got.lock().unwrap().push(report);
    StatusCode::OK
}

async fn work(args: &[&str], statuses: &[u16]) -> (Output, Vec<Report>) {
    let cpu = Arc::new(CpuBackend::new(Some(1)).unwrap());
    let receiver = Receiver { cpu, got: Arc::default(), statuses: Arc::new(Mutex::new(statuses.to_vec())) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/verify", listener.local_addr().unwrap());
    let app = Router::new().route("/verify", post(receive)).with_state(receiver.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tops-node"));
    command.args(["work", "--backend", "cpu"]).args(args).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("HOME", home.path()).env("WORKER_SK_HEX", SECRET).env("AGGREGATOR_URL", url).env("AUTOTUNE_PRESETS", "64,64,64;128,96,160");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let got = receiver.got.lock().unwrap().clone();
    (output, got)
}

#[tokio::test(flavor = "multi_thread")]
async fn its_receipts_are_true_in_both_variants() {
    for (args, variant) in [(vec!["--count", "3"], Variant::Plain), (vec!["--count", "3", "--mixed", "--nonce", "9"], Variant::Mixed)] {
        let (output, got) = work(&args, &[]).await;
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!((output.status.code(), got.len()), (Some(0), 3), "{text}");
        for report in &got {
            assert!(report.ok() && report.variant == Some(variant), "{report:?}");
        }
        let mut lines = text.lines();
        assert_eq!(lines.next().unwrap(), format!("pubkey(compressed)={PUBLIC}"));
        let first = if variant == Variant::Plain { "ok nonce=1 ms=" } else { "ok nonce=9 ms=" };
        assert!(lines.next().unwrap().starts_with(first), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_taken_is_repeated_or_said() {
    let (output, got) = work(&["--count", "1", "--json"], &[503]).await;
    assert_eq!((output.status.code(), got.len()), (Some(0), 1));
    let (output, got) = work(&["--count", "1"], &[400]).await;
    assert_eq!((output.status.code(), got.len()), (Some(1), 0));
    assert!(String::from_utf8(output.stdout).unwrap().contains("refused nonce=1"));
}
