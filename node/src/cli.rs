//! The command line: what can be said, and the way from there to a command and an exit code.
//!
//! ```text
//! arguments ──clap──▶ Cli + settings ──Layers──▶ commands::<one>::run ──Answer / Failure──▶ stdout, exit code
//! ```
//!
//! A command returns an [`Answer`] and prints nothing itself; `--json` is decided here. Exit codes: 0 yes, 1 no, 2 usage, 3 own fault.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::Value;

use crate::commands;
use crate::settings::{self, ConfigFault, Environment, Layers};

/// Mines, verifies, gossips and keeps receipts of matrix-multiplication work. Without a command: joins the network and mines.
#[derive(Debug, Parser)]
#[command(name = "tops-node", version, disable_help_subcommand = true)]
pub struct Cli {
    /// Print one JSON object instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do instead of mining.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compute one attempt and print its work root.
    Attempt(commands::attempt::Arguments),
    /// Check a receipt in text form: schema, signature, and its root by recomputation.
    Verify(commands::verify::Arguments),
    /// Measure devices: attempts and operations a second, end to end, and how fast receipts are verified.
    Bench(commands::bench::Arguments),
    /// Show what was found to compute with, and why anything was passed over.
    Devices,
    /// Make, show, import or export the miner's key.
    #[command(subcommand)]
    Key(commands::key::Action),
    /// The original solo worker: no network; v1 receipts are posted to an aggregator.
    Work(commands::work::Arguments),
    /// Ask a running node who earned what.
    Ledger(commands::ask::Ledger),
    /// Ask a running node for stored receipts and their state.
    Receipts(commands::ask::Receipts),
    /// Ask a running node for the main chain.
    Heads(commands::ask::Heads),
    /// Ask a running node for its peers.
    Peers(commands::ask::Peers),
    /// Show receipts on their way to the aggregator; have refused ones sent again, or drop them.
    Outbox(commands::outbox::Arguments),
    /// Look at everything that a node needs, running or not, and say what is wrong and what to do.
    Doctor,
    /// Print a script that completes this command line in a shell.
    Completions(commands::shell::Completions),
    /// Write man pages, one for each subcommand.
    Man(commands::shell::Man),
    /// Print the effective configuration and where each value came from; secrets are masked.
    Config,
}

/// Settings that a subcommand looks at; the bare command and `config` take all.
fn settings_of(command: &str) -> Vec<&'static str> {
    match command {
        "attempt" | "verify" => vec!["backend", "devices"],
        "bench" => vec!["backend", "devices", "network", "target-ms"],
        "devices" => vec!["backend", "devices"],
        "key" | "new" | "show" | "import" | "export" => vec!["network", "data-dir", "key-file", "identity-file"],
        "work" => vec!["network", "data-dir", "key-file", "device-did", "backend", "devices", "target-ms", "aggregator-url"],
        "completions" | "man" => Vec::new(),
        "ledger" | "receipts" | "heads" | "peers" | "outbox" | "list" | "replay" | "drop" => vec!["http", "api-token"],
        _ => settings::all(),
    }
}

/// The whole command line, settings included.
pub fn command() -> clap::Command {
    fn with_settings(command: clap::Command) -> clap::Command {
        let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
        // A command that works without a subcommand takes settings itself.
        let own = if names.is_empty() || ["tops-node", "outbox"].contains(&command.get_name()) {
            settings::args(&settings_of(command.get_name()))
        } else {
            Vec::new()
        };
        names.into_iter().fold(command.args(own), |command, name| command.mut_subcommand(name, with_settings))
    }
    with_settings(Cli::command())
}

/// The matches of every level, outermost first.
pub fn levels(matches: &ArgMatches) -> Vec<&ArgMatches> {
    let mut all = vec![matches];
    while let Some((_, inner)) = all.last().and_then(|m| m.subcommand()) {
        all.push(inner);
    }
    all
}

/// What a command found out.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Value,
    /// Exit 0 or exit 1.
    pub yes: bool,
}

impl Answer {
    /// A yes.
    pub fn yes(text: impl Into<String>, json: Value) -> Self {
        Self { text: text.into(), json, yes: true }
    }
}

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was asked makes no sense; exit 2.
    #[error("{0}")]
    Usage(String),
    /// Something here does not work; exit 3.
    #[error("{0:#}")]
    Own(#[from] anyhow::Error),
}

impl From<ConfigFault> for Failure {
    fn from(fault: ConfigFault) -> Self {
        Self::Usage(fault.0)
    }
}

/// Runs one command line; everything a user reads but logs goes to `out` and `err`.
pub fn run(args: impl IntoIterator<Item = OsString>, environment: Environment, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(e) => {
            let to: &mut dyn Write = if e.use_stderr() { err } else { out };
            // A closed terminal is nobody's fault.
            let _ = write!(to, "{}", e.render());
            return if e.use_stderr() { 2 } else { 0 };
        }
    };
    let (json, answer) = match Cli::from_arg_matches(&matches) {
        Ok(cli) => (cli.json, dispatch(cli, &matches, environment)),
        Err(e) => (false, Err(Failure::Usage(settings::one_line(&e.to_string())))),
    };
    let (text, code) = match answer {
        Ok(answer) if json => (answer.json.to_string(), u8::from(!answer.yes)),
        Ok(answer) => (answer.text, u8::from(!answer.yes)),
        Err(failure) => {
            let _ = writeln!(err, "tops-node: {failure}");
            let code = if matches!(failure, Failure::Usage(_)) { 2 } else { 3 };
            (if json { serde_json::json!({ "error": failure.to_string() }).to_string() } else { String::new() }, code)
        }
    };
    if !text.is_empty() {
        let _ = writeln!(out, "{}", text.trim_end());
    }
    code
}

fn dispatch(cli: Cli, matches: &ArgMatches, environment: Environment) -> Result<Answer, Failure> {
    let layers = Layers::new(&levels(matches), environment)?;
    match cli.command {
        None => commands::mine::run(&layers, cli.json),
        Some(Command::Attempt(arguments)) => commands::attempt::run(&arguments, &layers),
        Some(Command::Verify(arguments)) => commands::verify::run(&arguments, &layers),
        Some(Command::Bench(arguments)) => commands::bench::run(&arguments, &layers, cli.json),
        Some(Command::Devices) => commands::devices::run(&layers),
        Some(Command::Key(action)) => commands::key::run(&action, &layers, cli.json),
        Some(Command::Work(arguments)) => commands::work::run(&arguments, &layers, cli.json),
        Some(Command::Ledger(arguments)) => commands::ask::ledger(&arguments, &layers),
        Some(Command::Receipts(arguments)) => commands::ask::receipts(&arguments, &layers),
        Some(Command::Heads(arguments)) => commands::ask::heads(&arguments, &layers),
        Some(Command::Peers(arguments)) => commands::ask::peers(&arguments, &layers),
        Some(Command::Outbox(arguments)) => commands::outbox::run(&arguments, &layers),
        Some(Command::Doctor) => commands::doctor::run(&layers),
        Some(Command::Completions(arguments)) => commands::shell::completions(&arguments),
        Some(Command::Man(arguments)) => commands::shell::man(&arguments),
        Some(Command::Config) => commands::config::run(&layers),
    }
}

/// The process.
pub fn main() -> ExitCode {
    ExitCode::from(run(std::env::args_os(), Environment::of_process(), &mut std::io::stdout(), &mut std::io::stderr()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(args: &[&str]) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = ["tops-node"].iter().chain(args).map(OsString::from);
        let code = run(args, Environment::default(), &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn help_is_a_yes_and_nonsense_is_usage() {
        assert_eq!(said(&["--help"]).0, 0);
        assert_eq!(said(&["--version"]).0, 0);
        assert_eq!(said(&["--nonsense"]).0, 2);
        assert_eq!(said(&["attempt"]).0, 2);
        assert_eq!(said(&["config", "--audit-rate", "7"]).0, 2);
    }

    #[test]
    fn settings_may_stand_before_and_behind_the_command() {
        for args in [["--network", "dev", "config", "--json"], ["config", "--network", "dev", "--json"]] {
            let (code, out, _) = said(&args);
            assert_eq!(code, 0);
            let shown: Value = serde_json::from_str(&out).unwrap();
            assert_eq!(shown["network"]["value"], "dev");
            assert_eq!(shown["network"]["from"], "command line");
        }
    }

    #[test]
    fn a_failure_is_one_line_and_json_when_asked() {
        let (code, out, err) = said(&["config", "--bridge", "none", "--json"]);
        assert_eq!(code, 2);
        assert_eq!(err.trim_end().lines().count(), 1);
        assert!(serde_json::from_str::<Value>(&out).unwrap()["error"].as_str().unwrap().contains("say all or own"));
    }
}
