//! Keys that leave the machine and come back: sealed by a passphrase, opened by OpenSSL too, typed on a real terminal.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const PASSPHRASE: &str = "correct horse";

fn command(program: &str, args: &[&str], home: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.spawn().unwrap();
    // Who refuses early does not read it all.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn tops(args: &[&str], home: &Path, input: &[u8]) -> Output {
    run(command(env!("CARGO_BIN_EXE_tops-node"), args, home), input)
}

fn sentence(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    text
}

fn made(home: &Path) -> String {
    let file = home.join("another.key").display().to_string();
    let output = tops(&["key", "new", "--key-file", &file, "--json"], home, b"");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["public_key"].as_str().unwrap().to_owned()
}

fn shown(home: &Path, file: &str) -> String {
    let output = tops(&["key", "show", "--key-file", file, "--json"], home, b"");
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["public_key"].as_str().unwrap().to_owned()
}

/// A directory to work in, with relative names of files.
fn here() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn a_new_key_says_how_to_back_it_up_and_the_copy_comes_back() {
    let dir = here();
    let home = dir.path();
    let at = |name: &str| home.join(name).display().to_string();
    let output = tops(&["key", "new", "--key-file", &at("miner.key")], home, b"");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(&format!("tops-node key export --key-file {}", at("miner.key"))), "{text}");
    fs::write(at("pass"), format!("{PASSPHRASE}\n")).unwrap();
    let exported =
        tops(&["key", "export", &at("copy.pem"), "--key-file", &at("miner.key"), "--passphrase-file", &at("pass"), "--json"], home, b"");
    assert!(exported.status.success(), "{exported:?}");
    let copy = fs::read_to_string(at("copy.pem")).unwrap();
    assert!(copy.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----"));
    assert_eq!(fs::metadata(at("copy.pem")).unwrap().permissions().mode() & 0o777, 0o600);
    let secret = fs::read_to_string(at("miner.key")).unwrap();
    assert!(!copy.contains(secret.trim()));
    // Never over a file that is there.
    let again = tops(&["key", "export", &at("copy.pem"), "--key-file", &at("miner.key"), "--passphrase-file", &at("pass")], home, b"");
    assert!(again.status.code() == Some(3) && sentence(&again).contains("exists"));
    for (how, input) in [(at("pass"), ""), ("-".to_owned(), PASSPHRASE)] {
        let to = at(&format!("back{}.key", input.len()));
        let back = tops(&["key", "import", &at("copy.pem"), "--key-file", &to, "--passphrase-file", &how], home, input.as_bytes());
        assert!(back.status.success(), "{back:?}");
        assert_eq!(fs::read_to_string(&to).unwrap(), secret);
    }
}

#[test]
fn a_wrong_passphrase_is_one_sentence_and_no_file() {
    let dir = here();
    let home = dir.path();
    let at = |name: &str| home.join(name).display().to_string();
    tops(&["key", "new", "--key-file", &at("miner.key")], home, b"");
    let sealed = tops(&["key", "export", "-", "--key-file", &at("miner.key"), "--passphrase-file", "-"], home, PASSPHRASE.as_bytes());
    assert!(sealed.status.success(), "{sealed:?}");
    fs::write(at("copy.pem"), &sealed.stdout).unwrap();
    let wrong = tops(&["key", "import", &at("copy.pem"), "--key-file", &at("b.key"), "--passphrase-file", "-"], home, b"correct house");
    assert!(wrong.status.code() == Some(2) && sentence(&wrong).contains("does not open"), "{wrong:?}");
    assert!(!Path::new(&at("b.key")).exists());
    for (args, word) in [
        (vec!["key", "export", "-", "--passphrase-file", "-"], "at least 8"),
        (vec!["key", "import", "-", "--passphrase-file", "-"], "cannot both come"),
        (vec!["key", "export", "-", "--plain", "--json"], "name a file"),
    ] {
        let file = at(if args[1] == "import" { "c.key" } else { "miner.key" });
        let output = tops(&[&args[..], &["--key-file", &file]].concat(), home, b"short\n");
        assert!(output.status.code() == Some(2) && sentence(&output).contains(word), "{args:?} {output:?}");
    }
    let empty = tops(&["key", "export", "-", "--passphrase-file", "-", "--key-file", &at("miner.key")], home, b"\nsecond line\n");
    assert!(sentence(&empty).contains("first line"), "{empty:?}");
    // A plain copy warns, on standard error alone.
    let plain = tops(&["key", "export", "-", "--plain", "--key-file", &at("miner.key")], home, b"");
    assert!(sentence(&plain).contains("can sign for you"));
    assert_eq!(plain.stdout, fs::read(at("miner.key")).unwrap());
}

#[test]
fn openssl_opens_our_copy_and_we_take_its_keys() {
    let dir = here();
    let home = dir.path();
    let at = |name: &str| home.join(name).display().to_string();
    tops(&["key", "new", "--key-file", &at("miner.key")], home, b"");
    fs::write(at("pass"), PASSPHRASE).unwrap();
    let sealed = tops(&["key", "export", &at("copy.pem"), "--key-file", &at("miner.key"), "--passphrase-file", &at("pass")], home, b"");
    assert!(sealed.status.success(), "{sealed:?}");
    let passin = format!("file:{}", at("pass"));
    let opened = run(command("openssl", &["pkey", "-in", &at("copy.pem"), "-passin", &passin, "-text", "-noout"], home), b"");
    assert!(opened.status.success(), "{opened:?}");
    let text: String = String::from_utf8(opened.stdout).unwrap().split([':', '\n', ' ']).collect();
    let secret = fs::read_to_string(at("miner.key")).unwrap();
    assert!(text.contains(secret.trim()) && text.contains("secp256k1"), "OpenSSL shows the same key");

    // The other way round, in the forms that OpenSSL writes.
    let openssl = |args: &[&str]| {
        let output = run(command("openssl", args, home), b"");
        assert!(output.status.success(), "{output:?}");
    };
    openssl(&["ecparam", "-name", "secp256k1", "-genkey", "-noout", "-out", &at("sec1.pem")]);
    openssl(&["pkcs8", "-topk8", "-in", &at("sec1.pem"), "-out", &at("sealed.pem"), "-passout", &passin]);
    let mut publics = Vec::new();
    for name in ["sec1.pem", "sealed.pem"] {
        let to = at(&format!("{name}.key"));
        let taken = tops(&["key", "import", &at(name), "--key-file", &to, "--passphrase-file", &at("pass")], home, b"");
        assert!(taken.status.success(), "{taken:?}");
        publics.push(shown(home, &to));
    }
    assert_eq!(publics[0], publics[1]);
    openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &at("other.pem")]);
    let other = tops(&["key", "import", &at("other.pem"), "--key-file", &at("other.key")], home, b"");
    assert!(other.status.code() == Some(3) && sentence(&other).contains("secp256k1"), "{other:?}");
}

/// On a terminal of its own, what is typed one line after the other.
fn typed(home: &Path, line: &str, typed: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_tops-node");
    let mut child = command("script", &["-qec", &format!("{program} {line}"), "/dev/null"], home).spawn().unwrap();
    let mut keyboard = child.stdin.take().unwrap();
    for line in typed {
        // A prompt throws away what was typed before it; a slow machine makes this wait longer, never wrong: the program waits.
        std::thread::sleep(std::time::Duration::from_secs(2));
        let _ = writeln!(keyboard, "{line}");
    }
    child.wait_with_output().unwrap()
}

#[test]
fn slow_a_passphrase_is_typed_twice_and_never_shown() {
    let dir = here();
    let home = dir.path();
    let at = |name: &str| home.join(name).display().to_string();
    let public = {
        tops(&["key", "new", "--key-file", &at("miner.key")], home, b"");
        shown(home, &at("miner.key"))
    };
    let export = format!("key export {} --key-file {}", at("copy.pem"), at("miner.key"));
    let differ = typed(home, &export, &[PASSPHRASE, "another one"]);
    let text = String::from_utf8_lossy(&differ.stdout).into_owned();
    assert!(text.contains("differ") && !text.contains(PASSPHRASE), "{text}");
    assert!(!Path::new(&at("copy.pem")).exists());
    let good = typed(home, &export, &[PASSPHRASE, PASSPHRASE]);
    let text = String::from_utf8_lossy(&good.stdout).into_owned();
    assert!(text.contains("wrote") && !text.contains(PASSPHRASE), "{text}");
    let back = typed(home, &format!("key import {} --key-file {}", at("copy.pem"), at("back.key")), &[PASSPHRASE]);
    assert!(back.status.success(), "{back:?}");
    assert_eq!(shown(home, &at("back.key")), public);
    assert_ne!(made(home), public);
}
