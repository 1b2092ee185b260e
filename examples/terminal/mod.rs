//! What people see of a program that runs in a terminal: how far it is, and tables that fit.

// Each program that includes this module uses a part of it.
#![allow(dead_code)]

use std::{
    io::{IsTerminal, stderr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use comfy_table::{
    Attribute, Cell, Color, ContentArrangement, LineStyle, Table, presets::UTF8_HORIZONTAL_ONLY,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// Below this, cells would be broken into pieces that nobody can read: the terminal breaks the lines instead.
const LEAST_COLUMNS: u16 = 40;
/// Where standard error is no terminal, a line is written so often.
const QUIET: Duration = Duration::from_secs(10);
/// How often a bar is drawn when nothing has happened.
const TICK: Duration = Duration::from_millis(200);

/// As wide as the terminal, and as wide as it needs to be where there is none, or one that tells no width.
pub fn fit(table: &mut Table) {
    table.set_content_arrangement(match table.width() {
        Some(LEAST_COLUMNS..) => ContentArrangement::Dynamic,
        _ => ContentArrangement::Disabled,
    });
}

/// A table with a line above and one below.
pub fn ruled() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    // Rows belong together: a line between any two would take them apart.
    *table.style_mut() = UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());
    fit(&mut table);
    table
}

/// What was promised, each with a tick, or with a cross and what was seen instead.
pub fn promises<'a>(
    title: &str,
    promises: impl IntoIterator<Item = (&'a str, Option<String>)>,
) -> Table {
    let mut table = ruled();
    let bold = |text: &str| Cell::new(text).add_attribute(Attribute::Bold);
    table.set_header([bold(""), bold(title)]);
    for (what, broken) in promises {
        let (mark, color) = match broken {
            None => ("✓", Color::Green),
            Some(_) => ("✗", Color::Red),
        };
        let text = match broken {
            None => what.to_owned(),
            Some(seen) => format!("{what}\n{seen}"),
        };
        table.add_row([Cell::new(mark).fg(color), Cell::new(text)]);
    }
    table
}

/// The form of a bar, which takes what the text in `form` leaves of the line.
pub fn style(form: &str) -> ProgressStyle {
    ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// How many of all there are have been done. It is on standard error: a bar that is gone when this is dropped,
/// or, where that is no terminal, a line now and then.
pub struct Progress {
    bar: ProgressBar,
    lines: Option<Mutex<Instant>>,
    what: String,
}

impl Progress {
    /// `what` is done with them, such as `requests settled`.
    pub fn new(all: u64, what: &str) -> Self {
        let lines = (!stderr().is_terminal()).then(|| Mutex::new(Instant::now()));
        let form = "{wide_bar:.green/dim} {human_pos} of {human_len} {msg}  {elapsed}";
        let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr())
            .with_style(style(form))
            .with_message(what.to_owned())
            .with_finish(ProgressFinish::AndClear);
        bar.enable_steady_tick(TICK);
        Self {
            bar,
            lines,
            what: what.to_owned(),
        }
    }

    /// One more.
    pub fn step(&self) {
        self.bar.inc(1);
        let Some(lines) = &self.lines else {
            return;
        };
        let mut last = lines.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() >= QUIET {
            *last = Instant::now();
            let (done, all) = (self.bar.position(), self.bar.length().unwrap_or_default());
            eprintln!("{done} of {all} {}", self.what);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
