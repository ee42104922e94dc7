//! The binary as a user runs it: output, exit codes, files; against the published vectors.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs the binary with nothing of this process's settings in its environment.
fn tops(args: &[&str], env: &[(&str, &str)], input: Option<&[u8]>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tops-node"));
    command
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(env.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    if let Some(input) = input {
        // A command that refuses early does not read it all.
        let _ = child.stdin.take().unwrap().write_all(input);
    }
    drop(child.stdin.take());
    child.wait_with_output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn vectors(name: &str) -> Vec<Value> {
    let path = format!("{}/../tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn shape(v: &Value) -> String {
    format!("{},{},{}", v["m"], v["n"], v["k"])
}

#[test]
fn attempts_give_the_published_roots() {
    for v in vectors("work_v2") {
        let (nonce, timestamp, shape) = (v["nonce"].to_string(), v["timestamp_ms"].to_string(), shape(&v));
        let args = [
            "attempt",
            "--work",
            "v2",
            "--prev-hash",
            v["prev_hash"].as_str().unwrap(),
            "--miner",
            v["miner"].as_str().unwrap(),
            "--nonce",
            &nonce,
            "--timestamp",
            &timestamp,
            "--shape",
            &shape,
            "--json",
        ];
        let output = tops(&args, &[], None);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let answer = json(&output);
        assert_eq!((&answer["work_root"], &answer["unit"]), (&v["work_root"], &v["attempt_seed"]));
        assert!(answer["ms"].as_f64().unwrap() > 0.0);
    }
    let small = |v: &Value| v["m"].as_u64().unwrap() <= 512;
    for v in vectors("work_v1").into_iter().filter(small) {
        let (nonce, shape) = (v["nonce"].to_string(), shape(&v));
        let output = tops(
            &[
                "attempt",
                "--work",
                v["work"].as_str().unwrap(),
                "--prev-hash",
                v["prev_hash"].as_str().unwrap(),
                "--nonce",
                &nonce,
                "--shape",
                &shape,
                "--json",
            ],
            &[],
            None,
        );
        assert_eq!(json(&output)["work_root"], v["work_root"]);
    }
}

#[test]
fn what_an_attempt_lacks_is_usage() {
    let head = "aa".repeat(32);
    for args in [
        vec!["attempt", "--prev-hash", &head, "--nonce", "1", "--shape", "16,256,256"],
        vec!["attempt", "--work", "v1", "--prev-hash", &head, "--nonce", "4294967296", "--shape", "64,64,64"],
        vec!["attempt", "--work", "v1", "--prev-hash", &head, "--nonce", "1", "--shape", "0,64,64"],
        vec!["attempt", "--work", "v3", "--prev-hash", &head, "--nonce", "1", "--shape", "64,64,64"],
        vec!["attempt", "--work", "v1", "--prev-hash", "AA", "--nonce", "1", "--shape", "64,64,64"],
        vec!["attempt", "--work", "v1", "--prev-hash", &head, "--nonce", "1", "--shape", "64,64,64", "--backend", "abacus"],
    ] {
        let output = tops(&args, &[], None);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn verify_tells_true_from_false_and_names_the_stage() {
    for v in vectors("receipts") {
        let text = v["signing_text"].as_str().unwrap().replace("\"sig_hex\":\"\"", &format!("\"sig_hex\":{}", v["receipt"]["sig_hex"]));
        let key = v["public_key"].as_str().unwrap();
        let v1 = v["receipt"].get("miner_hex").is_none();
        let output = tops(&["verify", "-", "--pubkey", key, "--json"], &[], Some(text.as_bytes()));
        assert_eq!((output.status.code(), &json(&output)["ok"]), (Some(0), &Value::Bool(true)), "{output:?}");
        let without = tops(&["verify", "-", "--json"], &[], Some(text.as_bytes()));
        assert_eq!(without.status.code(), Some(i32::from(v1)));
        if v1 {
            assert_eq!(json(&without)["stage"], "signature");
            assert_eq!(tops(&["verify", "-"], &[("VERIFY_PUBKEY", key)], Some(text.as_bytes())).status.code(), Some(0));
        }
        for at in (0..text.len()).step_by(41) {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            let output = tops(&["verify", "-", "--pubkey", key, "--json"], &[], Some(&changed));
            assert_eq!(output.status.code(), Some(1), "byte {at} of {text}");
            assert!(["schema", "signature", "root"].contains(&json(&output)["stage"].as_str().unwrap()));
        }
    }
    assert_eq!(tops(&["verify", "/nowhere"], &[], None).status.code(), Some(3));
    assert_eq!(tops(&["verify", "-", "--pubkey", "zz"], &[], None).status.code(), Some(2));
}

#[test]
fn keys_are_made_shown_moved_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (file, copy) = (dir.path().join("keys/miner.key"), dir.path().join("other/copy.key"));
    let (file, copy) = (file.to_str().unwrap(), copy.to_str().unwrap());
    let home = [("HOME", dir.path().to_str().unwrap())];
    let made = json(&tops(&["key", "new", "--key-file", file, "--json"], &home, None));
    assert!(made["did"].as_str().unwrap().starts_with("did:key:zQ3s") && made["peer_id"].as_str().unwrap().starts_with("16Uiu2HA"));
    assert_eq!(tops(&["key", "new", "--key-file", file], &home, None).status.code(), Some(3));
    assert_eq!(json(&tops(&["key", "show", "--key-file", file, "--json"], &home, None)), made);
    let secret = tops(&["key", "export", "-", "--plain", "--key-file", file], &home, None).stdout;
    assert_eq!(secret.len(), 65);
    let imported = json(&tops(&["key", "import", "-", "--key-file", copy, "--json"], &home, Some(&secret)));
    assert_eq!(imported["public_key"], made["public_key"]);
    let given = [home[0], ("WORKER_SK_HEX", std::str::from_utf8(&secret).unwrap().trim())];
    assert_eq!(json(&tops(&["key", "show", "--json"], &given, None))["public_key"], made["public_key"]);
    assert_eq!(tops(&["key", "import", "-", "--key-file", &format!("{file}2")], &home, Some(b"not a key")).status.code(), Some(3));
}

#[test]
fn config_shows_sources_and_hides_secrets() {
    let env = [
        ("HOME", "/tmp"),
        ("TOPS_API_TOKEN", "0123456789abcdef"),
        ("WORKER_SK_HEX", "secret-key-text"),
        ("AGGREGATOR_URL", "http://localhost:8081/verify"),
    ];
    let output = tops(&["config", "--audit-rate", "0.5", "--json"], &env, None);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = json(&output);
    assert_eq!((&shown["audit-rate"]["value"], &shown["audit-rate"]["from"]), (&"0.5".into(), &"command line".into()));
    assert_eq!(shown["aggregator-url"]["from"], "variable AGGREGATOR_URL");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("0123456789abcdef") && !text.contains("secret-key-text"));
    let wrong = tops(&["config", "--audit-rate", "5"], &env, None);
    assert_eq!((wrong.status.code(), wrong.stderr.iter().filter(|&&b| b == b'\n').count()), (Some(2), 1));
}

#[test]
fn devices_and_a_short_bench() {
    let devices = json(&tops(&["devices", "--json"], &[], None));
    assert!(devices["devices"].as_array().unwrap().iter().any(|d| d["device"]["kind"] == "cpu"), "{devices}");
    let output = tops(&["bench", "--seconds", "1", "--shape", "16,256,256", "--backend", "cpu", "--json"], &[], None);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let answer = json(&output);
    assert!(answer["tops"].as_f64().unwrap() > 0.0 && answer["checked"].as_u64().unwrap() > 0, "{answer}");
}
