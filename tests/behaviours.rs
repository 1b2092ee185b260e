//! Proves that `BEHAVIOURS.md` beside this file and the labels of the tests say the same: that what is said to be
//! shown is shown by a test that exists.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// How many there are.
const BEHAVIOURS: u32 = 143;

/// The tests by which each behaviour is shown, as `path::name`.
type Shown = BTreeMap<u32, BTreeSet<String>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The numbers in `B31, P1, B139`.
fn numbers(label: &str) -> Vec<u32> {
    let words = label.split(|c: char| !c.is_ascii_alphanumeric());
    let numbers = words.filter_map(|word| word.strip_prefix('B')?.parse().ok());
    numbers.collect()
}

/// What `fn name(` and its like declare.
fn declared(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let is_code = !before.contains("//") && (before.is_empty() || before.ends_with(' '));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let name = after.split(|c| !is_name(c)).next()?;
    (is_code && !name.is_empty()).then_some(name)
}

/// The labels of one file: a comment that begins with `shows` belongs to the next function.
fn read_labels(path: &str, text: &str, shown: &mut Shown) {
    let mut labels = Vec::new();
    let mut is_label = false;
    for line in text.lines().map(str::trim) {
        if let Some(comment) = line.strip_prefix("//") {
            is_label |= comment.starts_with(" shows ");
            if is_label {
                labels.extend(numbers(comment));
            }
            continue;
        }
        is_label = false;
        if let Some(name) = declared(line) {
            for number in labels.drain(..) {
                let tests = shown.entry(number).or_default();
                tests.insert(format!("{path}::{name}"));
            }
        }
    }
    assert!(labels.is_empty(), "{path}: a label without a test");
}

fn read_folder(folder: &str, shown: &mut Shown) {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    for entry in entries.map(Result::unwrap) {
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            read_folder(&path, shown);
        } else if path.ends_with(".rs") && path != "tests/behaviours.rs" {
            let text = fs::read_to_string(entry.path()).unwrap();
            read_labels(&path, &text, shown);
        }
    }
}

/// The rows of the page: what stands in the last column, by number.
fn rows() -> BTreeMap<u32, String> {
    let page = fs::read_to_string(root().join("tests/BEHAVIOURS.md")).unwrap();
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| B")) {
        let (number, _) = line[3..].split_once(' ').unwrap();
        let number = number.parse().unwrap();
        let cell = line.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        assert_eq!(
            rows.insert(number, cell.to_owned()),
            None,
            "B{number} twice"
        );
    }
    rows
}

#[test]
fn the_page_and_the_labels_name_the_same_tests() {
    let mut shown = Shown::new();
    for folder in ["src", "tests", "examples", "benches"] {
        read_folder(folder, &mut shown);
    }
    let rows = rows();
    let (numbers, all) = (rows.keys().copied(), 1..=BEHAVIOURS);
    assert!(numbers.eq(all), "{:?}", rows.keys());
    let unknown: Vec<_> = shown.keys().filter(|it| !rows.contains_key(it)).collect();
    assert!(
        unknown.is_empty(),
        "labels that stand for nothing: {unknown:?}"
    );

    let mut wrong = Vec::new();
    for (number, cell) in &rows {
        let named = cell.split('`').skip(1).step_by(2);
        let named: BTreeSet<_> = named
            .filter(|it| it.contains("::"))
            .map(str::to_owned)
            .collect();
        let labelled = shown.remove(number).unwrap_or_default();
        if labelled.is_empty() && !cell.starts_with("does not apply: ") {
            wrong.push(format!(
                "B{number} is shown by no test, and nothing says why"
            ));
        }
        for test in labelled.difference(&named) {
            wrong.push(format!("B{number} lacks `{test}`"));
        }
        for test in named.difference(&labelled) {
            wrong.push(format!(
                "B{number} names {test}, which is not there or has no such label"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "tests/BEHAVIOURS.md:\n{}",
        wrong.join("\n")
    );
}
