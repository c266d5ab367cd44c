//! What goes on while a command waits: on stderr, and only if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget};

/// A line that says what is waited for; it goes away with this value.
pub struct Progress(ProgressBar);

impl Progress {
    /// Shows the line.
    pub fn new(what: impl Into<String>) -> Self {
        // (Draws nothing where stderr is no terminal.)
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_message(what.into());
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(bar)
    }

    /// Shows another line instead.
    pub fn say(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
