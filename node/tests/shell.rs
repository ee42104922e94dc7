//! Completions and man pages as the binary writes them, and a real bash that completes with ours.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::process::Command;

use tops_node::cli;

fn tops(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tops-node")).args(args).env_clear().output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// `["key", "export"]`, …: every way down, inner levels included.
fn paths(command: &clap::Command, above: &[String], all: &mut Vec<Vec<String>>) {
    for inner in command.get_subcommands() {
        let path = [above, &[inner.get_name().to_owned()]].concat();
        all.push(path.clone());
        paths(inner, &path, all);
    }
}

fn subcommands() -> Vec<Vec<String>> {
    let mut all = Vec::new();
    paths(&cli::command(), &[], &mut all);
    assert!(all.len() > 15 && all.contains(&vec!["outbox".into(), "drop".into()]));
    all
}

#[test]
fn every_shell_gets_a_script_that_knows_every_subcommand() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = tops(&["completions", shell]);
        for path in subcommands() {
            assert!(script.contains(path.last().unwrap()), "{shell} lacks {path:?}");
        }
        assert!(script.contains("audit-rate"), "{shell} lacks the settings");
    }
}

#[test]
fn a_real_bash_completes_with_it() {
    let script = tops(&["completions", "bash"]);
    let complete = |words: &[&str]| -> BTreeSet<String> {
        let program = format!(
            "{script}\nCOMP_WORDS=({}); COMP_CWORD={}; COMPREPLY=(); _tops-node tops-node \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.join(" "),
            words.len() - 1
        );
        let output = Command::new("bash").args(["--norc", "--noprofile", "-eu", "-c", &program]).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    };
    assert!(complete(&["tops-node", "doc"]).contains("doctor"));
    let verbs = complete(&["tops-node", "outbox", "''"]);
    assert!(["list", "replay", "drop"].iter().all(|verb| verbs.contains(*verb)), "{verbs:?}");
    assert!(complete(&["tops-node", "bench", "--sec"]).contains("--seconds"));
}

#[test]
fn there_is_a_man_page_for_every_subcommand() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("share/man1");
    let said = tops(&["man", "--out", out.to_str().unwrap()]);
    assert!(said.contains("wrote"), "{said}");
    let page = |name: &str| std::fs::read_to_string(out.join(format!("{name}.1"))).unwrap_or_else(|_| panic!("no page {name}"));
    let top = page("tops-node");
    for path in subcommands() {
        let text = page(&format!("tops-node-{}", path.join("-")));
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS") && text.contains(path.last().unwrap()), "{path:?}");
        if let [first] = &path[..] {
            assert!(top.contains(&format!("tops\\-node\\-{first}(1)")), "the first page does not name {first}");
        }
    }
    assert!(top.contains("audit\\-rate"));
}
