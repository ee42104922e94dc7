//! `tops-node outbox list|replay|drop`: receipts on their way to the aggregator, and what to do with those that it refused.

use serde_json::json;

use super::ask::{List, Paging};
use super::node::Node;
use super::table::Form;
use crate::cli::{Answer, Failure};
use crate::settings::Layers;

/// Digits of a unit.
const UNIT_DIGITS: usize = 64;
/// The fewest digits that may stand for a unit.
const PREFIX_MIN: usize = 4;

/// What to do with the outbox; list what is due unless told.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
}

/// Its verbs.
#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Show receipts on their way to the aggregator, or those that it refused.
    List(Listing),
    /// Have refused receipts sent again, once the reason is mended.
    Replay(Which),
    /// Forget refused receipts for good: they are never sent. They keep their credit.
    Drop {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// Do it: what is dropped cannot be had back.
        #[arg(long)]
        yes: bool,
    },
}

/// A state of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum State {
    /// Not deep enough yet, or not earning now.
    Waiting,
    /// To be sent, or tried and to be tried again.
    Due,
    /// The aggregator has it.
    Delivered,
    /// The aggregator refused it for good.
    Dead,
    /// Delivered, and without earnings since.
    Void,
    /// Every one of these.
    All,
}

impl State {
    const EACH: [(Self, &str); 5] =
        [(Self::Dead, "dead"), (Self::Due, "due"), (Self::Waiting, "waiting"), (Self::Void, "void"), (Self::Delivered, "delivered")];

    fn words(self) -> Vec<&'static str> {
        Self::EACH.iter().filter(|(state, _)| self == Self::All || *state == self).map(|(_, word)| *word).collect()
    }
}

/// What to list.
#[derive(Debug, clap::Args)]
pub struct Listing {
    /// Which state.
    #[arg(long, value_enum, default_value = "due")]
    state: State,
    #[command(flatten)]
    paging: Paging,
}

/// Which dead letters.
#[derive(Debug, clap::Args)]
#[group(id = "which", required = true, multiple = false)]
pub struct Which {
    /// The unit of one, or its first digits.
    #[arg(value_parser = unit_digits)]
    unit: Option<String>,
    /// Every dead letter.
    #[arg(long)]
    all: bool,
}

fn unit_digits(text: &str) -> Result<String, String> {
    let digits = text.trim_end_matches('…').to_ascii_lowercase();
    let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    if hex && (PREFIX_MIN..=UNIT_DIGITS).contains(&digits.len()) {
        Ok(digits)
    } else {
        Err(format!("a unit is {UNIT_DIGITS} hex digits, or at least its first {PREFIX_MIN}, as `tops-node outbox list --state dead` shows it"))
    }
}

/// Does it.
pub fn run(arguments: &Arguments, layers: &Layers) -> Result<Answer, Failure> {
    match &arguments.action {
        None => list(State::Due, &Paging::shown(), layers),
        Some(Action::List(listing)) => list(listing.state, &listing.paging, layers),
        Some(Action::Replay(which)) => tell(which, "replay", "replayed", "will be sent again", layers),
        Some(Action::Drop { yes: false, .. }) => {
            Err(Failure::Usage("what is dropped is never sent and cannot be had back: say --yes to do it".into()))
        }
        Some(Action::Drop { which, yes: true }) => tell(which, "drop", "dropped", "dropped", layers),
    }
}

fn listing(state: &str, paging: Paging) -> List {
    List {
        path: "/v1/outbox",
        rows: "outbox",
        next: Some(("next", "cursor")),
        columns: &[
            ("epoch", "epoch", Form::Number),
            ("state", "state", Form::Text),
            ("tries", "attempts", Form::Number),
            ("last", "at_ms", Form::Age),
            ("unit", "unit", Form::Id),
            ("answer", "note", Form::Text),
        ],
        parameters: vec![("state", state.to_owned())],
        paging,
        empty: format!("no receipt is {state}"),
    }
}

fn list(state: State, paging: &Paging, layers: &Layers) -> Result<Answer, Failure> {
    let node = Node::of(layers)?;
    let (mut rows, mut cut) = (Vec::new(), false);
    for word in state.words() {
        let (some, more) = listing(word, paging.clone()).fetch(&node)?;
        rows.extend(some);
        cut |= more;
    }
    let mut of = listing(state.words().first().copied().unwrap_or_default(), paging.clone());
    if state == State::All {
        of.empty = "the outbox is empty".into();
    }
    let mut answer = of.answer(rows, cut);
    // How many there are of each; a node that is only starting does not say yet.
    if let Ok(status) = node.get("/v1/status", &[]) {
        let counts = &status["outbox"];
        let each: Vec<String> = State::EACH.iter().map(|(_, word)| format!("{} {word}", counts[*word])).collect();
        answer.text.push_str(&format!("in all: {}\n", each.join(", ")));
        answer.json["counts"] = counts.clone();
    }
    Ok(answer)
}

fn tell(which: &Which, verb: &str, field: &str, done: &str, layers: &Layers) -> Result<Answer, Failure> {
    let node = Node::of(layers)?;
    let body = match &which.unit {
        None => json!({ "all": true }),
        Some(digits) => json!({ "unit": unit(digits, &node)? }),
    };
    let answer = node.post(&format!("/v1/outbox/{verb}"), &body)?;
    let text = match answer[field].as_u64() {
        Some(0) => "there is no dead letter".to_owned(),
        Some(1) => format!("1 receipt {done}"),
        _ => format!("{} receipts {done}", answer[field]),
    };
    Ok(Answer::yes(text, answer))
}

/// The whole unit that these digits begin.
fn unit(digits: &str, node: &Node) -> Result<String, Failure> {
    if digits.len() == UNIT_DIGITS {
        return Ok(digits.to_owned());
    }
    let (rows, _) = listing("dead", Paging::whole()).fetch(node)?;
    let mut units = rows.iter().filter_map(|row| row["unit"].as_str()).filter(|unit| unit.starts_with(digits));
    match (units.next(), units.count()) {
        (Some(unit), 0) => Ok(unit.to_owned()),
        (None, _) => Err(Failure::Usage(format!(
            "there is no dead letter whose unit begins with {digits}: `tops-node outbox list --state dead` shows them"
        ))),
        (Some(_), more) => Err(Failure::Usage(format!("{} dead letters begin with {digits}: give more digits", more + 1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_named_by_its_first_digits_as_a_table_shows_them() {
        assert_eq!(unit_digits("00FFaa…").unwrap(), "00ffaa");
        assert_eq!(unit_digits(&"a".repeat(64)).unwrap().len(), 64);
        for wrong in ["", "…", "abc", "xyzw", &"a".repeat(65)] {
            assert!(unit_digits(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn all_states_are_listed_the_urgent_ones_first() {
        assert_eq!(State::All.words().len(), 5);
        assert_eq!((State::All.words()[0], State::Void.words()), ("dead", vec!["void"]));
        let row = json!({ "epoch": 1, "state": "dead", "attempts": 2, "at_ms": null, "unit": "ab", "note": "400: no" });
        let text = listing("dead", Paging::shown()).answer(vec![row], true).text;
        assert!(text.contains("400: no") && text.contains("there is more"), "{text}");
    }
}
