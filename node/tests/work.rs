//! The solo worker as a process, against a receiver that checks every receipt that it gets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use tops_compute::backend::Backend;
use tops_compute::cpu::CpuBackend;
use tops_node::check::{self, Recomputed, Report};
use tops_protocol::codec::AnyReceipt;
use tops_protocol::receipt::ReceiptV1;
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

fn receiver(statuses: &[u16]) -> Receiver {
    let cpu = Arc::new(CpuBackend::new(Some(1)).unwrap());
    Receiver { cpu, got: Arc::default(), statuses: Arc::new(Mutex::new(statuses.to_vec())) }
}

/// The binary with nothing of this process's settings.
fn bare(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tops-node"));
    command.env_clear().env("HOME", home).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs the worker against a receiver that answers these statuses first, the last one first.
async fn work_under(env: &[(&str, &str)], args: &[&str], statuses: &[u16]) -> (Output, Vec<Report>) {
    let receiver = receiver(statuses);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/verify", listener.local_addr().unwrap());
    let app = Router::new().route("/verify", post(receive)).with_state(receiver.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let home = tempfile::tempdir().unwrap();
    let mut command = bare(home.path());
    command.args(["work", "--backend", "cpu"]).args(args);
    command.env("WORKER_SK_HEX", SECRET).env("AGGREGATOR_URL", url).env("AUTOTUNE_PRESETS", "64,64,64;128,96,160").envs(env.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let got = receiver.got.lock().unwrap().clone();
    (output, got)
}

async fn work(args: &[&str], statuses: &[u16]) -> (Output, Vec<Report>) {
    work_under(&[], args, statuses).await
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

/// What the worker does under these variables and arguments: its output, and the receipts as they came.
async fn under(env: &[(&str, &str)], args: &[&str], statuses: &[u16]) -> (Output, Vec<ReceiptV1>) {
    let (output, got) = work_under(env, args, statuses).await;
    let receipts = got.into_iter().map(|report| {
        assert!(report.ok(), "{report:?}");
        match report.receipt {
            Some(AnyReceipt::V1(receipt)) => receipt,
            other => panic!("{other:?}"),
        }
    });
    (output, receipts.collect())
}

fn shape(receipt: &ReceiptV1) -> (u32, u32, u32) {
    (receipt.m, receipt.n, receipt.k)
}

#[tokio::test(flavor = "multi_thread")]
async fn without_anything_said_it_is_the_originals_receipt() {
    let (output, got) = under(&[("AUTOTUNE_PRESETS", "64,96,128")], &["--count", "2"], &[]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let receipt = &got[0];
    assert_eq!((receipt.nonce, got[1].nonce, receipt.epoch_id, receipt.batch), (1, 2, 1, 1));
    assert_eq!((receipt.prev_hash.to_hex(), shape(receipt)), ("aa".repeat(32), (64, 96, 128)));
    assert!(receipt.device_did.as_str().starts_with("did:key:zQ3s"), "{receipt:?}");
    // The two lines, field by field.
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(&*format!("pubkey(compressed)={PUBLIC}")));
    let fields: Vec<&str> = lines.next().unwrap().split(' ').collect();
    assert_eq!((fields.len(), fields[0], fields[1]), (4, "ok", "nonce=1"));
    assert!(fields[2].strip_prefix("ms=").unwrap().parse::<f64>().is_ok(), "{fields:?}");
    assert_eq!(fields[3], format!("work_root={}", receipt.work_root));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_variable_of_the_original_works() {
    let one = ["--count", "1"];
    let presets = ("AUTOTUNE_PRESETS", "16,16,16;640,640,640");
    // The target chooses among the presets: the nearest.
    let (_, got) = under(&[presets, ("AUTOTUNE_TARGET_MS", "1")], &one, &[]).await;
    assert_eq!(shape(&got[0]), (16, 16, 16));
    let (_, got) = under(&[presets, ("AUTOTUNE_TARGET_MS", "60000")], &one, &[]).await;
    assert_eq!(shape(&got[0]), (640, 640, 640));
    // Without tuning it is 1024 cubed, whatever the presets.
    let (_, got) = under(&[presets, ("AUTOTUNE_DISABLE", "1")], &one, &[]).await;
    assert_eq!(shape(&got[0]), (1024, 1024, 1024));
    let (_, got) = under(&[presets, ("AUTOTUNE_DISABLE", "0"), ("AUTOTUNE_TARGET_MS", "1")], &one, &[]).await;
    assert_eq!(shape(&got[0]), (16, 16, 16));
    let (_, got) = under(&[presets, ("DEVICE_DID", "did:web:example.org:rig-7")], &one, &[]).await;
    assert_eq!(got[0].device_did.as_str(), "did:web:example.org:rig-7");
    // The debug receipt is what was posted.
    let (output, got) = under(&[presets, ("WORKER_DEBUG_RECEIPT", "1")], &one, &[]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().any(|line| line == got[0].to_text()), "{text}");
    let (output, _) = under(&[presets], &one, &[]).await;
    assert!(!String::from_utf8(output.stdout).unwrap().contains("sig_hex"));
    // A wrong value is one sentence.
    for (name, value) in [("AUTOTUNE_PRESETS", "64"), ("AUTOTUNE_TARGET_MS", "soon"), ("WORKER_SK_HEX", "zz"), ("AGGREGATOR_URL", "localhost")] {
        let (output, _) = under(&[(name, value)], &one, &[]).await;
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.trim_end().lines().count() == 1, "{name}: {text}");
    }
}

#[test]
fn the_default_aggregator_is_the_originals() {
    let matches = tops_node::cli::command().try_get_matches_from(["tops-node", "work"]).unwrap();
    let layers = tops_node::settings::Layers::new(&tops_node::cli::levels(&matches), Default::default()).unwrap();
    let choice = tops_node::config::solo_choice(&layers).unwrap();
    assert_eq!(choice.aggregator.as_str(), "http://localhost:8081/verify");
    assert_eq!(choice.target.as_millis(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn head_epoch_and_nonce_are_chosen() {
    let head = "0123456789abcdef".repeat(4);
    let args = ["--prev-hash", &head, "--epoch", "77", "--nonce", "4294967294"];
    let (output, got) = under(&[], &args, &[]).await;
    // It ends when the nonces do.
    assert_eq!((output.status.code(), got.len()), (Some(0), 2), "{output:?}");
    assert_eq!((got[1].prev_hash.to_hex(), got[1].epoch_id, got[1].nonce), (head, 77, u32::MAX));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_repeated_until_it_is_answered_and_never_twice_after_that() {
    // Popped from the end: overload, an own fault, too fast, and then taken; the receipts keep their order.
    let (output, got) = under(&[], &["--count", "2"], &[429, 500, 503]).await;
    assert_eq!((output.status.code(), got.iter().map(|r| r.nonce).collect::<Vec<_>>()), (Some(0), vec![1, 2]), "{output:?}");
    // A receipt that is there already is fine.
    let (output, got) = under(&[], &["--count", "1"], &[409]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && got.is_empty() && text.contains("ok nonce=1"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_outlives_an_aggregator_that_is_not_there_yet() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let home = tempfile::tempdir().unwrap();
    let mut command = bare(home.path());
    command.args(["work", "--backend", "cpu", "--count", "1"]);
    command.env("AGGREGATOR_URL", format!("http://{address}/verify")).env("AUTOTUNE_PRESETS", "64,64,64").env("WORKER_SK_HEX", SECRET);
    let worker = tokio::task::spawn_blocking(move || command.output().unwrap());
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let receiver = receiver(&[]);
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let app = Router::new().route("/verify", post(receive)).with_state(receiver.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let output = worker.await.unwrap();
    assert_eq!((output.status.code(), receiver.got.lock().unwrap().len()), (Some(0), 1), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_says_no_is_a_refusal_whatever_its_status() {
    let app = Router::new().route("/verify", post(|| async { "{\"ok\":true,\"sig_ok\":false,\"error\":\"unknown device\"}" }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/verify", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let home = tempfile::tempdir().unwrap();
    let mut command = bare(home.path());
    command.args(["work", "--backend", "cpu", "--count", "1"]);
    command.env("AGGREGATOR_URL", url).env("AUTOTUNE_PRESETS", "64,64,64").env("WORKER_SK_HEX", SECRET);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("refused nonce=1") && text.contains("unknown device"), "{text}");
}
