//! `tops-node completions` and `tops-node man`: both are made from the command line's own definition, so that they cannot lag behind it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap_complete::Shell;
use serde_json::json;

use crate::cli::{self, Answer, Failure};

/// The program's name in both.
const NAME: &str = "tops-node";

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
pub struct Completions {
    /// Which shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// The directory to write the pages to, such as /usr/local/share/man/man1; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// The script for a shell.
pub fn completions(arguments: &Completions) -> Result<Answer, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut cli::command(), NAME, &mut script);
    let script = String::from_utf8(script).context("the script is no text")?;
    let json = json!({ "shell": arguments.shell.to_string(), "script": script });
    Ok(Answer::yes(script, json))
}

/// Writes the pages: `tops-node.1`, `tops-node-bench.1`, `tops-node-key-export.1`, …
pub fn man(arguments: &Man) -> Result<Answer, Failure> {
    let out = &arguments.out;
    fs::create_dir_all(out).with_context(|| format!("the directory {} cannot be made: choose another --out", out.display()))?;
    let mut command = cli::command();
    command.build();
    let mut written = Vec::new();
    pages(&command, NAME, out, &mut written)?;
    let names: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    Ok(Answer::yes(format!("wrote {} pages to {}", names.len(), out.display()), json!({ "pages": names })))
}

fn pages(command: &clap::Command, name: &str, out: &Path, written: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let path = out.join(format!("{name}.1"));
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().name(name.to_owned())).render(&mut page).context("a page could not be made")?;
    fs::write(&path, page).with_context(|| format!("{} cannot be written: choose another --out", path.display()))?;
    written.push(path);
    command.get_subcommands().try_for_each(|inner| pages(inner, &format!("{name}-{}", inner.get_name()), out, written))
}
