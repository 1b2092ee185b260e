//! Shows how many instructions a request costs on the hot path, as valgrind's callgrind counts them: a
//! noisy machine does not change that. Only the sending is counted, not the making of the requests.
//!
//! It runs itself in valgrind. To see where the instructions go, from the crate's folder:
//!
//! ```sh
//! CARGO_PROFILE_BENCH_DEBUG=line-tables-only cargo bench --bench instructions --no-run # prints PATH
//! valgrind --tool=callgrind --toggle-collect='*send_counted*' PATH ours reused 10000
//! callgrind_annotate callgrind.out.*
//! ```

mod support;

use std::env;
use std::process::Command;

use tower_token_refresh::BoxError;

use self::support::clients;
use self::support::clients::Requests;
use self::support::clients::Sender;
use self::support::clients::Way;
use self::support::is_test;
use self::support::small_request;

/// The instructions of a request are the difference of two runs, so that the start is not counted.
const RUNS: [u64; 2] = [500, 2_500];

fn main() -> Result<(), BoxError> {
    let words: Vec<_> = env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    match &words[..] {
        [client, way, requests] => send(client, way, requests.parse()?),
        [] if is_test() => smoke(),
        [] => table(),
        _ => Err("none, or: CLIENT reused|cloned REQUESTS".into()),
    }
}

fn table() -> Result<(), BoxError> {
    println!("instructions: of each request");
    println!("use     client                   instructions");
    for way in ["reused", "cloned"] {
        for client in clients::all()? {
            let [few, many] = RUNS.map(|requests| counted(client.name, way, requests));
            let each = (many? - few?) as f64 / (RUNS[1] - RUNS[0]) as f64;
            println!("{way:<6}  {:<23}  {each:>12.0}", client.name);
        }
    }
    Ok(())
}

/// The instructions that this program takes to send so many requests.
fn counted(client: &str, way: &str, requests: u64) -> Result<u64, BoxError> {
    let options = ["--tool=callgrind", "--callgrind-out-file=/dev/null"];
    let output = Command::new("valgrind")
        .args(options)
        .arg("--toggle-collect=*send_counted*")
        .arg(env::current_exe()?)
        .args([client, way, &requests.to_string()])
        .output()
        .map_err(|error| format!("valgrind is needed, and cannot be run: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| line.contains("Collected"));
    let number = line.and_then(|line| line.split_whitespace().last());
    let number = number.ok_or_else(|| format!("valgrind counted nothing: {said}"))?;
    Ok(number.parse()?)
}

fn smoke() -> Result<(), BoxError> {
    for client in clients::all()? {
        send(client.name, "reused", 10)?;
        send(client.name, "cloned", 10)?;
    }
    Ok(())
}

fn send(client: &str, way: &str, requests: u64) -> Result<(), BoxError> {
    let way = match way {
        "cloned" => Way::Cloned,
        _ => Way::Reused,
    };
    let clients = clients::all()?;
    let named = clients.iter().find(|it| it.name == client);
    let mut sender = named.ok_or("no such client")?.sender(way);
    let requests = (0..requests).map(|_| small_request()).collect();
    send_counted(&mut sender, requests);
    Ok(())
}

/// Callgrind counts while this function runs.
#[inline(never)]
fn send_counted(sender: &mut Sender, requests: Requests) {
    sender(requests);
}
