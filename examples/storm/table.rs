//! The outcome for people.

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table};

use crate::{
    options::Options,
    promises::Kept,
    record::Record,
    terminal,
    words::{thousands, time},
};

pub fn show(options: &Options, connections: &str, record: &Record) -> String {
    let title = options.scenario.situation(options.requests());
    format!(
        "\n  {title}\n\n{}\n\n{}\n",
        counts(options, connections, record),
        promises(&record.promises)
    )
}

fn counts(options: &Options, connections: &str, record: &Record) -> Table {
    let mut table = terminal::ruled();
    table.set_header([bold("answers"), number_cell("counted"), bold("of")]);
    let asked = u64::from(options.requests) * u64::from(options.rounds);
    table.add_row([row("ok"), counted(record.ok), note(&thousands(asked))]);
    table.add_row([row("failed"), counted(record.failed), note(&seen(record))]);
    table.add_row([
        row("dropped"),
        counted(record.dropped),
        note("by their callers"),
    ]);
    table.add_row([row("hung"), hung(record.hung), note("")]);
    let rounds = format!("in {}", plural(options.rounds, "round"));
    let reissues = format!("{rounds}, counted by the server");
    table.add_row([row("reissues"), counted(record.reissues), note(&reissues)]);
    let wire = wire(options);
    table.add_row([row("on the wire"), counted(record.on_the_wire), note(&wire)]);
    let late = format!(
        "{} of them at once, as there was a newer token",
        thousands(record.late_rejections)
    );
    table.add_row([row("sent again"), counted(record.replays), note(&late)]);
    table.add_row([
        row("time"),
        number_cell(&time(record.wall)),
        note(&each(options, record)),
    ]);
    table.add_row([row("over"), Cell::new(""), note(connections)]);
    table
}

fn promises(promises: &[Kept]) -> Table {
    let seen = |promise: &Kept| {
        let (round, seen) = promise.broken.as_ref()?;
        Some(format!("round {round}: {seen}"))
    };
    let rows = promises.iter().map(|promise| (promise.what, seen(promise)));
    terminal::promises("promises, in every round", rows)
}

fn wire(options: &Options) -> String {
    let scenario = options.scenario;
    let most = scenario.most_on_the_wire(options.requests.into()) * u64::from(options.rounds);
    let rounds = match options.rounds {
        1 => String::new(),
        n => format!("{n} × ",),
    };
    let formula = scenario.formula();
    format!("{} at most: {rounds}({formula})", thousands(most))
}

fn each(options: &Options, record: &Record) -> String {
    match record.shortest {
        Some(shortest) if options.rounds > 1 => {
            format!("{} to {} a round", time(shortest), time(record.longest))
        }
        _ => "from the first sent to the last settled".to_owned(),
    }
}

/// How those failed that did.
fn seen(record: &Record) -> String {
    let failures: Vec<_> = record.failures.iter().map(String::as_str).collect();
    failures.join("\n")
}

fn plural(n: u32, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        n => format!("{} {what}s", thousands(n)),
    }
}

fn row(name: &str) -> Cell {
    Cell::new(name)
}

fn bold(text: &str) -> Cell {
    Cell::new(text).add_attribute(Attribute::Bold)
}

fn note(text: &str) -> Cell {
    Cell::new(text).fg(Color::DarkGrey)
}

fn counted(number: u64) -> Cell {
    number_cell(&thousands(number))
}

fn hung(number: u64) -> Cell {
    let color = if number == 0 {
        Color::Green
    } else {
        Color::Red
    };
    counted(number).fg(color)
}

fn number_cell(text: &str) -> Cell {
    Cell::new(text)
        .set_alignment(CellAlignment::Right)
        .add_attribute(Attribute::Bold)
}
