//! The outcome for people.

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table, presets::NOTHING};

use crate::{
    options::{Options, Protocol},
    outcome::{Outcome, Promise},
    terminal,
    words::{thousands, time},
};

pub fn show(options: &Options, outcome: &Outcome, promises: &[Promise]) -> String {
    let Outcome {
        counts,
        recovery,
        hung,
        hits,
        ..
    } = outcome;
    let mut table = Table::new();
    table.load_style(NOTHING);
    terminal::fit(&mut table);
    let mut row = |what: &str, number: String, note: &str, is_good: Option<bool>| {
        let number = Cell::new(number)
            .set_alignment(CellAlignment::Right)
            .add_attribute(Attribute::Bold);
        let number = match is_good {
            Some(true) => number.fg(Color::Green),
            Some(false) => number.fg(Color::Red),
            None => number,
        };
        table.add_row([Cell::new(what), number, Cell::new(note).fg(Color::DarkGrey)]);
    };
    let per_expiry = counts.reissues as f64 / counts.expiries.max(1) as f64;
    let faultless = !options.has_faults();
    let rounds = u64::from(options.rounds);
    let expiries = match rounds.saturating_sub(counts.expiries) {
        0 => format!("in {} rounds", thousands(rounds)),
        lost => format!(
            "in {} rounds: {} went by without new tokens",
            thousands(rounds),
            thousands(lost)
        ),
    };
    row("expiries", thousands(counts.expiries), &expiries, None);
    row(
        "reissues",
        thousands(counts.reissues),
        &format!("{per_expiry:.3} for each expiry"),
        faultless.then_some(counts.reissues == counts.expiries),
    );
    row(
        "used twice",
        thousands(counts.reused),
        "refresh tokens that the issuer saw again when they were spent",
        faultless.then_some(counts.reused == 0),
    );
    row(
        "needlessly",
        thousands(counts.avoidable),
        "of them: somebody alive had what came in its place",
        Some(counts.avoidable == 0),
    );
    row(
        "logins ended",
        thousands(counts.families_ended),
        "by a second use",
        None,
    );
    row(
        "in doubt",
        thousands(counts.in_doubt),
        "reissues whose answer nobody alive has got",
        None,
    );
    row(
        "hung",
        thousands(*hung),
        "processes that did not go on",
        Some(*hung == 0),
    );
    row("hits", thousands(*hits), "killed or stopped", None);
    let [p50, p99, max] = [recovery.p50, recovery.p99, recovery.max].map(time);
    let which = match faultless {
        true => "in all rounds",
        false => "in rounds where something went wrong",
    };
    row(
        "recovery",
        p50,
        &format!("p99 {p99}, max {max}, {which}; the issuer takes up to 0.3 s"),
        None,
    );
    let rule = match options.protocol {
        Protocol::Lease => "",
        Protocol::TtlLock => ", with a lock that runs out",
    };
    let rows = promises.iter().map(|it| (it.what, it.broken.clone()));
    format!(
        "\n  {} processes, {} rounds{rule}\n\n{table}\n\n{}\n\n{}\n",
        options.processes,
        options.rounds,
        outcome.speed,
        terminal::promises("promises", rows)
    )
}
