//! The requests' lives as an SVG picture: one line each, and the reissue as a band through all of them.

use std::{
    fmt::{self, Display, Write},
    time::{Duration, Instant},
};

use http::StatusCode;

use crate::{
    client::End,
    options::Options,
    record::Tally,
    storm::{Round, Users},
    trace::Times,
    words::{thousands, time},
};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 48.0;
const RIGHT: f64 = 876.0;
const TOP: f64 = 150.0;
const BOTTOM: f64 = 474.0;
/// More lines than this can't be told apart.
const MOST_LINES: usize = 400;

/// The moment in which the server said no.
const REJECTED: &str = "#d1242f";
const SENT: &str = "#3f8fd2";
const WAITS: &str = "#f0b13c";
const SENT_AGAIN: &str = "#2da05a";
const OK: &str = "#116329";
const LEFT_EARLY: &str = "#6e7781";
const REISSUE: &str = "#8250df";

/// All that is drawn, without its places.
#[derive(Default)]
pub struct Picture {
    title: String,
    chapters: Vec<Chapter>,
    /// In the order in which they were sent; times are counted from the beginning of the round.
    lines: Vec<Line>,
    of: usize,
    reissues: Vec<(f64, f64)>,
    /// What happened to the session meanwhile.
    events: Vec<(&'static str, f64)>,
    wall: f64,
}

/// One step of the story above the picture, which is its legend as well.
struct Chapter {
    number: u64,
    what: &'static str,
    color: &'static str,
    mark: Mark,
}

enum Mark {
    Line,
    Tick,
    Band,
}

#[derive(Default)]
struct Line {
    spans: Vec<(&'static str, f64, f64)>,
    ticks: Vec<(&'static str, f64)>,
}

impl Picture {
    pub fn of(options: &Options, round: &Round, tally: &Tally) -> Self {
        let clock = Clock(round.begun);
        let times = round.lives.iter().map(|life| life.times());
        let mut lines: Vec<_> = times
            .zip(&round.ends)
            .filter_map(|(times, end)| {
                let line = clock.line(&times, end.as_ref(), round.wall);
                Some((began(&times)?, line))
            })
            .collect();
        lines.sort_by_key(|(began, ..)| *began);
        let end = ms(round.wall);
        let waiting = lines.iter().filter(|(_, line)| line.waits()).count();
        Self {
            title: options.scenario.situation(options.requests()),
            chapters: chapters(round, tally, waiting as u64),
            lines: sample(lines, MOST_LINES),
            of: round.lives.len(),
            reissues: round
                .reissues
                .iter()
                .map(|it| (clock.ms(it.begun), it.over.map_or(end, |at| clock.ms(at))))
                .collect(),
            events: events(&round.users, &clock),
            wall: ms(round.wall),
        }
    }
}

fn events(users: &Users, clock: &Clock) -> Vec<(&'static str, f64)> {
    let events = [
        ("logout", users.logout),
        ("the other login", users.login_done),
    ];
    let times = events.into_iter();
    times
        .filter_map(|(name, at)| Some((name, clock.ms(at?))))
        .collect()
}

fn began(times: &Times) -> Option<Instant> {
    times.sends.first().map(|send| send.at).or(times.called)
}

/// At most `most` of them, evenly.
fn sample(lines: Vec<(Instant, Line)>, most: usize) -> Vec<Line> {
    let (all, shown) = (lines.len(), lines.len().min(most));
    let is_shown = |at: &usize| at * shown / all != (at + 1) * shown / all;
    let places = (0..).zip(lines);
    places
        .filter(|(at, _)| is_shown(at))
        .map(|(_, (_, line))| line)
        .collect()
}

fn chapters(round: &Round, tally: &Tally, waiting: u64) -> Vec<Chapter> {
    let chapter = |number, what, color, mark| Chapter {
        number,
        what,
        color,
        mark,
    };
    let all = [
        chapter(tally.n, "requests sent", SENT, Mark::Line),
        chapter(rejections(round), "rejected: 401", REJECTED, Mark::Tick),
        chapter(tally.reissues, "reissue", REISSUE, Mark::Band),
        chapter(waiting, "wait for it", WAITS, Mark::Line),
        chapter(tally.replays, "sent again", SENT_AGAIN, Mark::Line),
        chapter(tally.ok, "succeed", OK, Mark::Tick),
        chapter(tally.failed, "get the server's no", REJECTED, Mark::Tick),
        chapter(tally.dropped, "dropped by callers", LEFT_EARLY, Mark::Tick),
        chapter(tally.hung, "hang", REJECTED, Mark::Line),
    ];
    all.into_iter().filter(|it| it.number > 0).collect()
}

/// First answers that were a 401.
fn rejections(round: &Round) -> u64 {
    let lives = round.lives.iter().map(|life| life.times());
    let rejected = |times: &Times| {
        let first = times.sends.first().and_then(|send| send.answered);
        first.is_some_and(|(_, status)| status == StatusCode::UNAUTHORIZED)
    };
    lives.filter(rejected).count() as u64
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Counts from the beginning of the round.
struct Clock(Instant);

impl Clock {
    fn ms(&self, at: Instant) -> f64 {
        ms(at.saturating_duration_since(self.0))
    }

    fn line(&self, times: &Times, end: Option<&End>, wall: Duration) -> Line {
        let mut line = Line::default();
        let end_at = times.settled.map_or_else(|| ms(wall), |at| self.ms(at));
        let mut free = times.called.map_or(end_at, |at| self.ms(at));
        for (number, send) in times.sends.iter().enumerate() {
            let at = self.ms(send.at);
            line.span(WAITS, free, at);
            let answered = send.answered.map(|(at, _)| self.ms(at));
            free = answered.unwrap_or(end_at).min(end_at);
            // Where callers try again, what is sent again is what the layer makes good: the last.
            let is_again = number > 0 && (times.tries == 1 || number + 1 == times.sends.len());
            line.span(if is_again { SENT_AGAIN } else { SENT }, at, free);
            if let Some((_, StatusCode::UNAUTHORIZED)) = send.answered {
                line.ticks.push((REJECTED, free));
            }
        }
        let (wait, tick) = match end {
            Some(End::Accepted { .. }) => (SENT_AGAIN, Some(OK)),
            Some(End::Refused { .. } | End::Failed(_)) => (WAITS, Some(REJECTED)),
            Some(End::Dropped) => (WAITS, Some(LEFT_EARLY)),
            None => (REJECTED, None),
        };
        line.span(wait, free, end_at);
        line.ticks.extend(tick.map(|color| (color, end_at)));
        line
    }
}

impl Line {
    /// For something, that is: not for its turn on the processor only.
    fn waits(&self) -> bool {
        let mut spans = self.spans.iter();
        spans.any(|(color, from, to)| *color == WAITS && to - from > 1.0)
    }

    fn span(&mut self, color: &'static str, from: f64, to: f64) {
        if to > from {
            self.spans.push((color, from, to));
        }
    }
}

impl Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = Scale::new(self.wall, self.lines.len());
        self.frame(f)?;
        self.story(f)?;
        self.axes(f, &scale)?;
        self.lives(f, &scale)?;
        self.bands(f, &scale)?;
        self.name_of_bands(f, &scale)?;
        self.happenings(f, &scale)?;
        f.write_str("</svg>\n")
    }
}

impl Picture {
    fn frame(&self, f: &mut impl Write) -> fmt::Result {
        let title = &self.title;
        writeln!(
            f,
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" font-family="system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif" font-size="12" fill="#57606a">
<title>{title}</title>
<rect x="0.5" y="0.5" width="{}" height="{}" rx="8" fill="#ffffff" stroke="#d0d7de"/>
<text x="{LEFT}" y="36" font-size="19" font-weight="600" fill="#1f2328">{title}</text>"##,
            WIDTH - 1.0,
            HEIGHT - 1.0,
        )
    }

    /// `200 requests sent → 200 rejected → …`, with the colours of the picture.
    fn story(&self, f: &mut impl Write) -> fmt::Result {
        let slot = (RIGHT - LEFT) / self.chapters.len().max(1) as f64;
        for (place, chapter) in self.chapters.iter().enumerate() {
            let x = LEFT + slot * place as f64;
            let (color, what) = (chapter.color, chapter.what);
            let plural = matches!(chapter.mark, Mark::Band) && chapter.number > 1;
            let s = if plural { "s" } else { "" };
            let number = thousands(chapter.number);
            chapter.mark(f, x, 63.0)?;
            writeln!(
                f,
                r#"<text x="{}" y="76" font-size="20" font-weight="700" fill="{color}">{number}</text><text x="{x}" y="96">{what}{s}</text>"#,
                x + 22.0
            )?;
            if place > 0 {
                let arrow = x - 22.0;
                writeln!(
                    f,
                    r##"<text x="{arrow:.1}" y="75" font-size="17" fill="#8c959f">→</text>"##
                )?;
            }
        }
        Ok(())
    }

    fn axes(&self, f: &mut impl Write, scale: &Scale) -> fmt::Result {
        for tick in scale.ticks() {
            let x = scale.x(tick);
            writeln!(
                f,
                r##"<path d="M{x:.1} {TOP}V{BOTTOM}" stroke="#eaeef2"/><text x="{x:.1}" y="{}" text-anchor="middle">{tick}</text>"##,
                BOTTOM + 18.0
            )?;
        }
        let shown = match self.lines.len() {
            n if n == self.of => String::new(),
            n => format!(" ({} of {} shown)", thousands(n), thousands(self.of)),
        };
        writeln!(
            f,
            r#"<text x="{RIGHT}" y="{y}" text-anchor="end">milliseconds</text><text x="{LEFT}" y="{y}">each line is one request{shown}, as its caller saw it</text>"#,
            y = BOTTOM + 36.0,
        )
    }

    /// One path for each colour: a thousand elements would make the file large and slow.
    fn lives(&self, f: &mut impl Write, scale: &Scale) -> fmt::Result {
        let thin = (scale.row * 0.78).clamp(0.4, 6.0);
        for color in [SENT, WAITS, SENT_AGAIN, REJECTED] {
            let path = self.path(|row, line, path| {
                let y = scale.y(row);
                for (_, from, to) in line.spans.iter().filter(|span| span.0 == color) {
                    write!(path, "M{:.1} {y:.1}H{:.1}", scale.x(*from), scale.x(*to))?;
                }
                Ok(())
            })?;
            stroke(f, &path, color, thin)?;
        }
        for color in [REJECTED, LEFT_EARLY, OK] {
            let path = self.path(|row, line, path| {
                let y = scale.y(row) - scale.tick / 2.0;
                for (_, at) in line.ticks.iter().filter(|tick| tick.0 == color) {
                    write!(path, "M{:.1} {y:.1}v{:.1}", scale.x(*at), scale.tick)?;
                }
                Ok(())
            })?;
            stroke(f, &path, color, 2.2)?;
        }
        Ok(())
    }

    fn path(
        &self,
        draw: impl Fn(usize, &Line, &mut String) -> fmt::Result,
    ) -> Result<String, fmt::Error> {
        let mut path = String::new();
        for (row, line) in self.lines.iter().enumerate() {
            draw(row, line, &mut path)?;
        }
        Ok(path)
    }

    /// Over the lines, which would hide it.
    fn bands(&self, f: &mut impl Write, scale: &Scale) -> fmt::Result {
        for (from, to) in &self.reissues {
            let (x, width) = scale.span(*from, *to);
            let (top, end) = (TOP - 8.0, x + width);
            let height = BOTTOM - top;
            writeln!(
                f,
                r#"<rect x="{x:.1}" y="{top}" width="{width:.1}" height="{height}" fill="{REISSUE}" fill-opacity="0.14"/><path d="M{x:.1} {top}V{BOTTOM}M{end:.1} {top}V{BOTTOM}" stroke="{REISSUE}" stroke-width="1.5" stroke-dasharray="4 3"/>"#
            )?;
        }
        Ok(())
    }

    fn name_of_bands(&self, f: &mut impl Write, scale: &Scale) -> fmt::Result {
        let (Some((from, _)), Some((last, to))) = (self.reissues.first(), self.reissues.last())
        else {
            return Ok(());
        };
        let name = match self.reissues.len() {
            1 => format!(
                "one reissue, {}",
                time(Duration::from_secs_f64((to - last) / 1000.0))
            ),
            n => format!("{n} reissues"),
        };
        let middle = scale.x((from + to) / 2.0).clamp(LEFT + 60.0, RIGHT - 60.0);
        writeln!(
            f,
            r#"<text x="{middle:.1}" y="{}" text-anchor="middle" font-size="14" font-weight="600" fill="{REISSUE}">{name}</text>"#,
            TOP - 16.0
        )
    }

    fn happenings(&self, f: &mut impl Write, scale: &Scale) -> fmt::Result {
        for (place, (name, at)) in self.events.iter().enumerate() {
            let x = scale.x(*at);
            // They may be close: the first is named to the left, the second to the right.
            let anchor = ["end", "start"][place % 2];
            writeln!(
                f,
                r##"<path d="M{x:.1} 118V{BOTTOM}" stroke="#1f2328" stroke-width="1.2"/><text x="{:.1}" y="124" text-anchor="{anchor}" font-size="13" font-weight="600" fill="#1f2328">{name}</text>"##,
                x + [-5.0, 5.0][place % 2],
            )?;
        }
        Ok(())
    }
}

fn stroke(f: &mut impl Write, path: &str, color: &str, width: f64) -> fmt::Result {
    if path.is_empty() {
        return Ok(());
    }
    writeln!(
        f,
        r#"<path d="{path}" stroke="{color}" stroke-width="{width:.2}" fill="none"/>"#
    )
}

impl Chapter {
    fn mark(&self, f: &mut impl Write, x: f64, y: f64) -> fmt::Result {
        let color = self.color;
        match self.mark {
            Mark::Line => writeln!(
                f,
                r#"<path d="M{x:.1} {}h16" stroke="{color}" stroke-width="4"/>"#,
                y + 6.0
            ),
            Mark::Tick => writeln!(
                f,
                r#"<path d="M{:.1} {}v14" stroke="{color}" stroke-width="4"/>"#,
                x + 8.0,
                y - 1.0
            ),
            Mark::Band => writeln!(
                f,
                r#"<rect x="{x:.1}" y="{}" width="16" height="14" fill="{color}" fill-opacity="0.2" stroke="{color}" stroke-dasharray="4 3"/>"#,
                y - 1.0
            ),
        }
    }
}

/// Where a time and a line are on the picture.
struct Scale {
    per_ms: f64,
    end: f64,
    row: f64,
    tick: f64,
}

impl Scale {
    fn new(wall: f64, lines: usize) -> Self {
        let end = wall.max(0.1);
        let row = (BOTTOM - TOP) / lines.max(1) as f64;
        Self {
            // Some room for the last mark.
            per_ms: (RIGHT - LEFT - 4.0) / end,
            end,
            row,
            tick: (row * 0.9).clamp(2.6, 14.0),
        }
    }

    fn x(&self, ms: f64) -> f64 {
        LEFT + ms.min(self.end) * self.per_ms
    }

    fn y(&self, row: usize) -> f64 {
        TOP + self.row * (row as f64 + 0.5)
    }

    fn span(&self, from: f64, to: f64) -> (f64, f64) {
        let x = self.x(from);
        (x, (self.x(to) - x).max(2.0))
    }

    /// About eight round numbers.
    fn ticks(&self) -> impl Iterator<Item = f64> {
        let rough = self.end / 8.0;
        let magnitude = 10f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * magnitude);
        let step = steps
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        let count = (self.end / step) as u32;
        // Multiplied and rounded, not added up: 0.1 has no exact form.
        (0..=count).map(move |n| (f64::from(n) * step * 1000.0).round() / 1000.0)
    }
}
