//! What people see of a program that runs in a terminal: how far it is, and tables that fit.

// Each program that includes this module uses a part of it.
#![allow(dead_code)]

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use comfy_table::{
    Attribute, Cell, Color, ContentArrangement, LineStyle, Table, presets::UTF8_HORIZONTAL_ONLY,
};
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle, TermLike};

/// Below this, cells would be broken into pieces that nobody can read: the terminal breaks the lines instead.
const LEAST_COLUMNS: u16 = 24;
/// Where no bar can be drawn, a line is written so often.
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

/// A line on the terminal. A `{wide_bar}` in it takes what the text leaves.
pub fn style(form: &str) -> ProgressStyle {
    ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Standard error, where it is a terminal that tells how wide it is. No bar can be drawn on another.
pub fn target() -> ProgressDrawTarget {
    match has_columns() {
        true => ProgressDrawTarget::term_like_with_hz(Box::new(Returning(Term::stderr())), 10),
        false => ProgressDrawTarget::hidden(),
    }
}

fn has_columns() -> bool {
    let size = Term::stderr().size_checked();
    size.is_some_and(|(_, columns)| columns > 0)
}

/// A terminal that writes `^C` over a line and not behind it: the lines are filled up to their end, so that it
/// would begin another, and whoever clears the lines would clear one too few.
#[derive(Debug)]
struct Returning(Term);

impl TermLike for Returning {
    fn width(&self) -> u16 {
        TermLike::width(&self.0)
    }

    fn height(&self) -> u16 {
        TermLike::height(&self.0)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_up(n)
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_down(n)
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_right(n)
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.0.move_cursor_left(n)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.write_str("\r")?;
        self.0.flush()
    }
}

/// How many of all there are have been done. It is on standard error: a bar that is gone when this is dropped,
/// or, where none can be drawn, a line now and then.
pub struct Progress {
    bar: ProgressBar,
    lines: Option<Mutex<Instant>>,
    what: String,
}

impl Progress {
    /// `what` is done with them, such as `requests settled`.
    pub fn new(all: u64, what: &str) -> Self {
        let lines = (!has_columns()).then(|| Mutex::new(Instant::now()));
        let form = "{wide_bar:.green/dim} {human_pos} of {human_len} {msg}  {elapsed}";
        let bar = ProgressBar::with_draw_target(Some(all), target())
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
