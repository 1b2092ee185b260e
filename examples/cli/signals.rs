//! The signals that ask the program to end: from the keyboard, from whoever stops it, and from a
//! terminal that is gone.

pub use imp::Signals;

#[cfg(unix)]
mod imp {
    use std::{fs, future::poll_fn, task::Poll};

    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// From when it was made, so that none is missed.
    pub struct Signals(Vec<(Signal, u8)>);

    impl Signals {
        pub fn watch() -> Self {
            let kinds = [
                SignalKind::interrupt(),
                SignalKind::terminate(),
                SignalKind::hangup(),
            ];
            let numbers = kinds.map(|kind| kind.as_raw_value());
            let hangup = SignalKind::hangup().as_raw_value();
            let is_watched = |number: &i32| *number != hangup || !is_ignored(hangup);
            let watched = numbers.into_iter().filter(is_watched);
            let listen = |number| {
                let signal = signal(SignalKind::from_raw(number)).ok()?;
                Some((signal, 128 + u8::try_from(number).ok()?))
            };
            Self(watched.filter_map(listen).collect())
        }

        /// Waits for one of them: the exit status that shells report for it.
        pub async fn next(&mut self) -> u8 {
            poll_fn(|context| {
                for (signal, status) in &mut self.0 {
                    if signal.poll_recv(context) == Poll::Ready(Some(())) {
                        return Poll::Ready(*status);
                    }
                }
                Poll::Pending
            })
            .await
        }
    }

    /// Whoever started the program wants this one to do nothing, as `nohup` does with the hangup. Only
    /// Linux tells; elsewhere it ends the program all the same.
    fn is_ignored(number: i32) -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut lines = status.lines();
        let ignored = lines.find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        ignored.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
    }
}

#[cfg(not(unix))]
mod imp {
    use std::future::pending;

    use tokio::signal::ctrl_c;

    pub struct Signals;

    impl Signals {
        pub fn watch() -> Self {
            Self
        }

        /// Waits for one: the exit status for it.
        pub async fn next(&mut self) -> u8 {
            match ctrl_c().await {
                Ok(()) => 130,
                Err(_) => pending().await,
            }
        }
    }
}
