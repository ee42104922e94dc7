//! Progress bars for people who watch a terminal. Where standard error is none (a log, a pipe, a service) nothing is ever drawn.
//!
//! While a bar stands, log lines go around it: [`writer`] is what logging writes to.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tops_protocol::engine::SyncState;

use crate::state::Shared;

/// How often a bar moves by itself.
const STEADY: Duration = Duration::from_millis(120);
/// How often the chain's height is looked at.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// The bars of this process; hidden until [`show`] is called on a terminal.
fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(|| MultiProgress::with_draw_target(ProgressDrawTarget::hidden()))
}

/// Lets bars be drawn, if standard error is a terminal. Not to be called where logs or answers are for programs.
pub fn show() {
    if io::stderr().is_terminal() {
        bars().set_draw_target(ProgressDrawTarget::stderr());
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template of this file that is wrong gives the plain style; a test looks at each.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

const COUNTED: &str = "{prefix} [{bar:40}] {pos}/{len} {msg} {eta}";
const TIMED: &str = "{prefix} [{bar:40}] {percent}% {msg}";
const WAITING: &str = "{spinner} {prefix} {msg}";

/// Something that takes a while. It goes when it is dropped.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Something that counts towards a number that may move.
    pub fn counted(what: &str, of: u64) -> Self {
        Self::with(ProgressBar::new(of), COUNTED, what)
    }

    /// Something that takes a known time: call [`Self::at`] with milliseconds.
    pub fn timed(what: &str, takes: Duration) -> Self {
        Self::with(ProgressBar::new(u64::try_from(takes.as_millis()).unwrap_or(u64::MAX)), TIMED, what)
    }

    /// Something whose end nobody knows.
    pub fn waiting(what: &str) -> Self {
        let waiting = Self::with(ProgressBar::new_spinner(), WAITING, what);
        waiting.0.enable_steady_tick(STEADY);
        waiting
    }

    fn with(bar: ProgressBar, template: &str, what: &str) -> Self {
        let bar = bars().add(bar);
        bar.set_style(style(template));
        bar.set_prefix(what.to_owned());
        Self(bar)
    }

    /// How far it is.
    pub fn at(&self, position: u64) {
        self.0.set_position(position);
    }
    /// The number may have moved.
    pub fn of(&self, length: u64) {
        self.0.set_length(length);
    }
    /// A word about it.
    pub fn say(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
        bars().remove(&self.0);
    }
}

/// Shows how far the node is behind its peers' chain, while it is. Runs until the node stops; at once where nothing is drawn.
pub async fn follow_sync(shared: Shared) {
    let mut bar: Option<Progress> = None;
    while !bars().is_hidden() && !shared.stopping() {
        match shared.view().map(|view| (view.engine.sync, view.engine.height)) {
            Some((SyncState::Heads(target), height)) if target > height => {
                let bar = bar.get_or_insert_with(|| Progress::counted("sync", target.0));
                bar.of(target.0);
                bar.at(height.0);
                bar.say("heads");
            }
            _ => bar = None,
        }
        tokio::time::sleep(FOLLOW_EVERY).await;
    }
}

/// Standard error, with the bars taken away while a line is written.
pub fn writer() -> impl Write {
    Around
}

struct Around;

impl Write for Around {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        bars().suspend(|| io::stderr().write(bytes))
    }
    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_right_and_nothing_is_drawn_until_it_is_asked_for() {
        for template in [COUNTED, TIMED, WAITING] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
        assert!(bars().is_hidden());
        let progress = Progress::counted("sync", 10);
        progress.at(3);
        progress.of(12);
        progress.say("heads");
        assert_eq!((progress.0.position(), progress.0.length()), (3, Some(12)));
    }
}
