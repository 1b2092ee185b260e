//! What a scripted issuer has counted, and waiting for it.

use tokio::sync::watch;

/// What a [`ScriptedIssuer`](super::ScriptedIssuer) has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct IssuerCounts {
    /// Logins of users.
    pub logins: usize,
    /// Reissues received, whatever became of them.
    pub reissues: usize,
    /// Reissues received that neither have their answer nor were given up by the client.
    pub reissues_in_flight: usize,
    /// The most that `reissues_in_flight` has ever been.
    pub most_reissues_in_flight: usize,
    /// Refresh tokens presented that had been used before, not counting those in the
    /// [grace window](super::ScriptedIssuer::grace).
    pub reuses: usize,
    /// Families (the tokens that stem from one login) that a reuse has ended.
    pub families_ended: usize,
    /// Requests to the API with a live access token, which get a 200.
    pub accepted: usize,
    /// Requests to the API without one, which get a 401.
    pub rejected: usize,
}

pub(super) struct Counter(watch::Sender<IssuerCounts>);

// The oldest tokio that is allowed has no default for a sender.
impl Default for Counter {
    fn default() -> Self {
        Self(watch::Sender::new(IssuerCounts::default()))
    }
}

impl Counter {
    pub(super) fn counts(&self) -> IssuerCounts {
        *self.0.borrow()
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut IssuerCounts)) {
        self.0.send_modify(change);
    }

    /// A reissue that is in flight until this is dropped.
    pub(super) fn reissue(&self) -> InFlight<'_> {
        self.count(|counts| {
            counts.reissues += 1;
            counts.reissues_in_flight += 1;
            let most = counts
                .most_reissues_in_flight
                .max(counts.reissues_in_flight);
            counts.most_reissues_in_flight = most;
        });
        InFlight(self)
    }

    pub(super) async fn until(
        &self,
        mut condition: impl FnMut(&IssuerCounts) -> bool,
    ) -> IssuerCounts {
        let mut receiver = self.0.subscribe();
        loop {
            // Copied, so that the condition does not run under the lock of the counts.
            let counts = *receiver.borrow_and_update();
            // There is always a sender: it is ours.
            if condition(&counts) || receiver.changed().await.is_err() {
                return counts;
            }
        }
    }
}

pub(super) struct InFlight<'a>(&'a Counter);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.count(|counts| counts.reissues_in_flight -= 1);
    }
}
