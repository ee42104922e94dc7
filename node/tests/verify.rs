//! The original verifier's contract, against a real node's `POST /verify` under the original's variable `VERIFY_PUBKEY`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use k256::ecdsa::{Signature, VerifyingKey};
use serde_json::{Value, json};
use tops_node::http::BODY_MAX;

/// A light node, ended when it is dropped.
struct Node {
    child: Child,
    base: String,
    client: reqwest::Client,
    _dir: tempfile::TempDir,
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Node {
    fn start(key: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut command = Command::new(env!("CARGO_BIN_EXE_tops-node"));
        command.args(["--network", "dev", "--verify-only", "--http", "127.0.0.1:0", "--listen", "/ip4/127.0.0.1/tcp/0", "--log", "json"]);
        command.arg("--data-dir").arg(&data).env_clear().env("HOME", dir.path());
        command.envs(key.map(|key| ("VERIFY_PUBKEY", key))).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line: Value = serde_json::from_str(&log.next().expect("the node ended").unwrap()).unwrap();
            if let Some(address) = line["address"].as_str() {
                break address.to_owned();
            }
        };
        std::thread::spawn(move || log.for_each(drop));
        Self { child, base: format!("http://{address}"), client: reqwest::Client::builder().no_proxy().build().unwrap(), _dir: dir }
    }

    async fn verify(&self, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let request = self.client.post(format!("{}/verify", self.base)).header("content-type", "application/json").body(body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

/// The v1 vector.
fn vector() -> Value {
    let all: Vec<Value> = serde_json::from_str(include_str!("../../tests/vectors/receipts.json")).unwrap();
    all[3].clone()
}

/// In signing order, with this signature.
fn text(vector: &Value, sig_hex: &str) -> String {
    vector["signing_text"].as_str().unwrap().replace("\"sig_hex\":\"\"", &format!("\"sig_hex\":\"{sig_hex}\""))
}

fn compact(vector: &Value) -> String {
    vector["receipt"]["sig_hex"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_the_variable_may_be_short_or_long_and_the_signature_compact_or_der() {
    let vector = vector();
    let short = vector["public_key"].as_str().unwrap().to_owned();
    let point = VerifyingKey::from_sec1_bytes(&hex::decode(&short).unwrap()).unwrap();
    let long = hex::encode(point.to_sec1_point(false).as_bytes());
    assert_eq!((short.len(), long.len()), (66, 130));
    let der = Signature::from_slice(&hex::decode(compact(&vector)).unwrap()).unwrap().to_der();
    for key in [short, long] {
        let node = Node::start(Some(&key));
        for sig in [compact(&vector), hex::encode(der.as_bytes())] {
            let (status, answer) = node.verify(text(&vector, &sig)).await;
            assert_eq!(status, 200, "{answer}");
            assert_eq!((&answer["ok"], &answer["sig_ok"], &answer["root_ok"]), (&json!(true), &json!(true), &json!(true)), "{answer}");
            assert_eq!((&answer["pubkey_hex"], &answer["digest_hex"]), (&json!(key), &vector["prehash"]));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_nothing_is_called_true() {
    let node = Node::start(None);
    let vector = vector();
    let (status, answer) = node.verify(text(&vector, &compact(&vector))).await;
    assert_eq!((status, &answer["ok"], &answer["sig_ok"]), (200, &json!(false), &json!(false)), "{answer}");
    assert_eq!((&answer["pubkey_hex"], answer["error"].as_str().unwrap().contains("VERIFY_PUBKEY")), (&Value::Null, true));
    let health = node.client.get(format!("{}/healthz", node.base)).send().await.unwrap();
    assert_eq!((health.status().as_u16(), health.json::<Value>().await.unwrap()), (200, json!({ "ok": true })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_schema_is_400_and_a_false_receipt_is_never_a_cheerful_true() {
    let vector = vector();
    let node = Node::start(vector["public_key"].as_str());
    let good: Value = serde_json::from_str(&text(&vector, &compact(&vector))).unwrap();
    let mut bad = Vec::new();
    let fields =
        ["device_did", "epoch_id", "prev_hash_hex", "nonce", "work_root_hex", "sizes", "time_ms", "kernel_ver", "driver_hint", "sig_hex"];
    for field in fields {
        let mut without = good.clone();
        without.as_object_mut().unwrap().remove(field);
        bad.push(without);
        bad.push({ let mut other = good.clone(); other[field] = json!([]); other });
    }
    for side in ["m", "n", "k"] {
        for wrong in [json!(0), json!(8193), json!(-1), json!(1.5), json!("64"), Value::Null] {
            let mut other = good.clone();
            other["sizes"][side] = wrong;
            bad.push(other);
        }
    }
    let root = good["work_root_hex"].as_str().unwrap();
    for name in ["work_root_hex", "prev_hash_hex"] {
        for wrong in [root.to_uppercase(), root[1..].to_owned(), format!("{root}0"), format!("0x{root}"), "g".repeat(64)] {
            let mut other = good.clone();
            other[name] = json!(wrong);
            bad.push(other);
        }
    }
    for body in bad {
        let (status, answer) = node.verify(body.to_string()).await;
        assert_eq!((status, &answer["ok"], answer["error"].is_string()), (400, &json!(false), true), "{body} {answer}");
    }
    for body in ["", "[]", "null", "{", "\"receipt\""] {
        assert_eq!(node.verify(body).await.0, 400, "{body}");
    }
    assert_eq!(node.verify(" ".repeat(BODY_MAX + 1)).await.0, 413);
    // A megabyte is taken; the receipt's digest covers what is between its fields.
    let (status, _) = node.verify(format!("{}{}", " ".repeat(BODY_MAX - 2_000), text(&vector, &compact(&vector)))).await;
    assert_eq!(status, 200);

    // Signed well, but the root is another: the original said yes.
    let secret = tops_node::keys::parse(vector["secret_key"].as_str().unwrap()).unwrap();
    let lie = vector["signing_text"].as_str().unwrap().replace(root, &"0".repeat(64));
    let id = tops_protocol::ReceiptId(*blake3::hash(lie.as_bytes()).as_bytes());
    let sig = secret.sign(&tops_protocol::receipt::prehash(&id));
    let (status, answer) = node.verify(lie.replace("\"sig_hex\":\"\"", &format!("\"sig_hex\":\"{sig}\""))).await;
    assert_eq!((status, &answer["ok"], &answer["sig_ok"], &answer["root_ok"]), (200, &json!(false), &json!(true), &json!(false)), "{answer}");
    // Another signature: the original said 200 too, but `sig_ok` says it.
    let (status, answer) = node.verify(text(&vector, &sig.to_string())).await;
    assert_eq!((status, &answer["ok"], &answer["sig_ok"]), (200, &json!(false), &json!(false)), "{answer}");
}
