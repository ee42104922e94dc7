//! `tops-node key new|show|import|export`: the miner's key file, and copies of it that a passphrase seals.
//!
//! A secret is read from a file or standard input and written to a new private file or standard output, never taken from the command line;
//! a passphrase comes from the terminal without echo, or from a file for scripts.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;
use tops_protocol::keys::SecretKey;
use zeroize::Zeroizing;

use crate::cli::{Answer, Failure};
use crate::config::{self, KeySource, Secret};
use crate::settings::Layers;
use crate::{keys, sealed};

/// What to do with the key.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Make a new key file; an existing one is never replaced.
    New,
    /// Show the public key, the peer id and the did:key.
    Show,
    /// Take a secret key from a file or from standard input (-): a sealed copy, a PEM file, or 64 hex digits.
    Import {
        /// The file, or -.
        from: PathBuf,
        /// A file whose first line is the passphrase, or - for standard input; asked on the terminal unless given.
        #[arg(long, value_name = "FILE|-")]
        passphrase_file: Option<PathBuf>,
    },
    /// Write a copy of the secret key, sealed by a passphrase, to a new private file or to standard output (-).
    Export {
        /// The file, or -.
        to: PathBuf,
        /// Write the secret key as it is, 64 hex digits: whoever reads them can sign for you.
        #[arg(long, conflicts_with = "passphrase_file")]
        plain: bool,
        /// A file whose first line is the passphrase, or - for standard input; asked on the terminal unless given.
        #[arg(long, value_name = "FILE|-")]
        passphrase_file: Option<PathBuf>,
    },
}

/// Does it.
pub fn run(action: &Action, layers: &Layers, json: bool) -> Result<Answer, Failure> {
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
            let mut answer = show(&key, Some(&path))?;
            answer.text.push_str(&format!("\n{}", keys::backup(&path)));
            Ok(answer)
        }
        Action::Show => match &choice.key {
            KeySource::File(path) => Ok(show(&existing(path)?, Some(path))?),
            KeySource::Given(_) => Ok(show(&keys::miner_key(&choice.key)?, None)?),
        },
        Action::Import { from, passphrase_file } => {
            let path = file("write")?;
            if path.symlink_metadata().is_ok() {
                return Err(anyhow::anyhow!("{} exists: keep it, or name another file with --key-file", path.display()).into());
            }
            let key = import(from, passphrase_file.as_deref())?;
            keys::create(&path, &key)?;
            Ok(show(&key, Some(&path))?)
        }
        Action::Export { to, plain, passphrase_file } => {
            let key = match &choice.key {
                KeySource::File(path) => existing(path)?,
                KeySource::Given(_) => keys::miner_key(&choice.key)?,
            };
            export(&key, to, *plain, passphrase_file.as_deref(), json)
        }
    }
}

/// The key of a file that should be there.
fn existing(path: &Path) -> Result<SecretKey, Failure> {
    if path.symlink_metadata().is_err() {
        let why = format!("there is no key file {}: make one with `tops-node key new`, or say with --key-file where yours is", path.display());
        return Err(anyhow::anyhow!(why).into());
    }
    Ok(keys::load(path)?)
}

fn export(key: &SecretKey, to: &Path, plain: bool, passphrase_file: Option<&Path>, json: bool) -> Result<Answer, Failure> {
    let out = to == Path::new("-");
    if out && json {
        return Err(Failure::Usage("with --json the key does not go to standard output: name a file".into()));
    }
    if !out && to.symlink_metadata().is_ok() {
        return Err(anyhow::anyhow!("{} exists: name another file", to.display()).into());
    }
    let text = if plain {
        Zeroizing::new(format!("{}\n", keys::to_text(key).as_str()))
    } else {
        sealed::seal(key, &new_passphrase(passphrase_file)?)?
    };
    if plain {
        eprintln!("tops-node: this is the secret key itself, and whoever reads it can sign for you: keep it where nobody does");
    }
    let public = key.public().to_hex();
    if out {
        std::io::stdout().write_all(text.as_bytes()).context("cannot write standard output")?;
        return Ok(Answer::yes("", json!({ "public_key": public })));
    }
    keys::create_private(to, &text, "name another file")?;
    let how = if plain { "" } else { "; `tops-node key import` takes it back, and `openssl pkey -text -noout -in` opens it too" };
    Ok(Answer::yes(format!("wrote {}{how}", to.display()), json!({ "file": to.display().to_string(), "public_key": public, "sealed": !plain })))
}

fn import(from: &Path, passphrase_file: Option<&Path>) -> Result<SecretKey, Failure> {
    let stdin = Path::new("-");
    if from == stdin && passphrase_file == Some(stdin) {
        return Err(Failure::Usage("the key and the passphrase cannot both come from standard input: name a file for one of them".into()));
    }
    let text = secret_text(from, sealed::TEXT_MAX, "a key")?;
    if !sealed::is_sealed(&text) {
        return Ok(sealed::read(&text)?);
    }
    let passphrase = match passphrase_file {
        Some(file) => first_line(file)?,
        None => asked("Passphrase: ")?,
    };
    sealed::open(&text, &passphrase)?
        .ok_or_else(|| Failure::Usage("the passphrase does not open this key: try another one, or another copy if the file was damaged".into()))
}

/// Reads what a file or standard input holds, up to a bound.
fn secret_text(from: &Path, max: u64, what: &str) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::with_capacity(max as usize + 1));
    let named = from.display();
    let read = if from == Path::new("-") {
        if std::io::stdin().is_terminal() {
            eprintln!("tops-node: reading {what} from the terminal; end with Ctrl-D");
        }
        std::io::stdin().take(max + 1).read_to_string(&mut text)
    } else {
        std::fs::File::open(from).and_then(|file| file.take(max + 1).read_to_string(&mut text))
    };
    let read = read.map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => anyhow::anyhow!("{named} holds no text, so no key: name a key file"),
        _ => anyhow::Error::from(e).context(format!("cannot read {named}")),
    })?;
    if read as u64 > max {
        return Err(anyhow::anyhow!("{named} is too long for {what}").into());
    }
    Ok(text)
}

fn first_line(file: &Path) -> Result<Secret, Failure> {
    let text = secret_text(file, sealed::PASSPHRASE_MAX as u64 + 2, "a passphrase")?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() { Err(Failure::Usage(format!("{} begins with an empty line: the passphrase must be on its first line", file.display()))) } else { Ok(Secret::new(line.to_owned())) }
}

fn asked(prompt: &str) -> Result<Secret, Failure> {
    rpassword::prompt_password(prompt).map(Secret::new).map_err(|_| {
        Failure::Usage("a passphrase is needed and there is no terminal to ask for it: say --passphrase-file FILE, or - for standard input".into())
    })
}

/// A passphrase that will seal a key; on a terminal it is typed twice.
fn new_passphrase(file: Option<&Path>) -> Result<Secret, Failure> {
    let passphrase = match file {
        Some(file) => first_line(file)?,
        None => {
            let first = asked("Passphrase for the copy: ")?;
            if first.expose().chars().count() >= sealed::PASSPHRASE_MIN && asked("The same again: ")? != first {
                return Err(Failure::Usage("the two passphrases differ: try again".into()));
            }
            first
        }
    };
    if passphrase.expose().chars().count() < sealed::PASSPHRASE_MIN {
        return Err(Failure::Usage(format!("a passphrase has at least {} characters: take a longer one", sealed::PASSPHRASE_MIN)));
    }
    Ok(passphrase)
}

fn show(key: &SecretKey, path: Option<&Path>) -> anyhow::Result<Answer> {
    let public = key.public();
    let peer = keys::identity(key)?.public().to_peer_id();
    let did = keys::did_key(&public);
    let file = path.map_or("(WORKER_SK_HEX)".to_owned(), |p| p.display().to_string());
    let text = format!("public key {public}\npeer id    {peer}\ndid        {did}\nfile       {file}");
    Ok(Answer::yes(text, json!({ "public_key": public.to_hex(), "peer_id": peer.to_string(), "did": did.as_str(), "file": file })))
}
