//! What the system says of processes.

// Each test file uses a part of it.
#![allow(dead_code)]

use std::fs;

/// The processes that this one has started, and not those that these have started.
pub fn children(of: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{of}/task")).expect("it runs");
    let lists = tasks.map(|task| task.expect("a task").path().join("children"));
    // A thread that has ended meanwhile has none.
    let lists = lists.filter_map(|list| fs::read_to_string(list).ok());
    let texts: Vec<_> = lists.collect();
    let ids = texts.iter().flat_map(|list| list.split_whitespace());
    ids.map(|id| id.parse().expect("an id")).collect()
}

/// What it does, as a letter: `T` is one that is stopped. `None` for one that is gone.
pub fn state(process: u32) -> Option<char> {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    status.rsplit(')').next()?.trim_start().chars().next()
}

/// Neither gone nor only waiting for somebody to ask how it ended.
pub fn is_running(process: u32) -> bool {
    state(process).is_some_and(|state| state != 'Z')
}
