//! `tops-node key new|show|import|export`: the miner's key file.
//!
//! A secret is read from a file or standard input and written to a new private file or standard output, never taken from the command line.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;
use tops_protocol::keys::SecretKey;
use zeroize::Zeroizing;

use crate::cli::{Answer, Failure};
use crate::config::{self, KeySource};
use crate::keys;
use crate::settings::Layers;

/// What to do with the key.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Make a new key file; an existing one is never replaced.
    New,
    /// Show the public key, the peer id and the did:key.
    Show,
    /// Take a secret key, 64 hex digits, from a file or from standard input (-).
    Import {
        /// The file, or -.
        #[arg(default_value = "-")]
        from: PathBuf,
    },
    /// Write the secret key to a new private file or to standard output (-).
    Export {
        /// The file, or -.
        to: PathBuf,
    },
}

/// Does it.
pub fn run(action: &Action, layers: &Layers) -> Result<Answer, Failure> {
    let choice = config::key_choice(layers)?;
    let file = |what: &str| match &choice.key {
        KeySource::File(path) => Ok(path.clone()),
        KeySource::Given(_) => Err(Failure::Usage(format!("WORKER_SK_HEX is set: unset it, or say with --key-file which file to {what}"))),
    };
    match action {
        Action::New => {
            let path = file("make")?;
            let key = keys::generate()?;
            keys::create(&path, &key)?;
            Ok(show(&key, Some(&path))?)
        }
        Action::Show => match &choice.key {
            KeySource::File(path) => Ok(show(&keys::load(path)?, Some(path))?),
            KeySource::Given(_) => Ok(show(&keys::miner_key(&choice.key)?, None)?),
        },
        Action::Import { from } => {
            let path = file("write")?;
            let mut text = Zeroizing::new(String::with_capacity(256));
            if from == Path::new("-") {
                std::io::stdin().take(256).read_to_string(&mut text).context("cannot read standard input")?;
            } else {
                std::fs::File::open(from)
                    .and_then(|f| f.take(256).read_to_string(&mut text))
                    .with_context(|| format!("cannot read {}", from.display()))?;
            }
            let key = keys::parse(&text)?;
            keys::create(&path, &key)?;
            Ok(show(&key, Some(&path))?)
        }
        Action::Export { to } => {
            let key = match &choice.key {
                KeySource::File(path) => keys::load(path)?,
                KeySource::Given(_) => keys::miner_key(&choice.key)?,
            };
            if to == Path::new("-") {
                let mut out = std::io::stdout();
                writeln!(out, "{}", keys::to_text(&key).as_str()).context("cannot write standard output")?;
                return Ok(Answer::yes("", json!({ "public_key": key.public().to_hex() })));
            }
            keys::create(to, &key)?;
            Ok(Answer::yes(
                format!("wrote {}", to.display()),
                json!({ "file": to.display().to_string(), "public_key": key.public().to_hex() }),
            ))
        }
    }
}

fn show(key: &SecretKey, path: Option<&Path>) -> anyhow::Result<Answer> {
    let public = key.public();
    let peer = keys::identity(key)?.public().to_peer_id();
    let did = keys::did_key(&public);
    let file = path.map_or("(WORKER_SK_HEX)".to_owned(), |p| p.display().to_string());
    let text = format!("public key {public}\npeer id    {peer}\ndid        {did}\nfile       {file}");
    Ok(Answer::yes(text, json!({ "public_key": public.to_hex(), "peer_id": peer.to_string(), "did": did.as_str(), "file": file })))
}
