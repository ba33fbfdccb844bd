//! The first answers, before a generation is ready.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{Discovery, FIRST_BACKOFF, jittered};
use crate::clock;

/// Wait before a name is asked for the second time; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait between two questions.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How long a start waits for names that do not resolve.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    /// Nothing is served meanwhile: a failure is enough, and other clusters get their traffic.
    FirstResult,
    /// Another generation serves: they are asked for until each cluster has an address, unless that
    /// one has none either.
    Address,
}

impl Discovery {
    /// Asks for one target until that is enough.
    async fn first_answer(&self, at: usize, wait: Wait) {
        let mut pause = FIRST_PAUSE;
        loop {
            self.ask(at).await;
            if wait == Wait::FirstResult || !self.is_empty() || self.lacks_as_before() {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }

    /// Whether the cluster has no address at all.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.cluster.endpoints().endpoints.is_empty()
    }

    /// From now on failures are counted anew: those so far followed each other too fast.
    fn calm_down(&self) {
        for target in self.lock().iter_mut().filter(|target| target.failures > 1) {
            target.failures = 1;
            target.due = Some(clock::now() + jittered(FIRST_BACKOFF));
        }
    }
}

/// Asks for everything, at most for `timeout`.
pub(in super::super) async fn warm(discoveries: &[Arc<Discovery>], timeout: Duration, wait: Wait) {
    let mut tasks = JoinSet::new();
    for discovery in discoveries {
        for at in discovery.dns_targets() {
            let discovery = Arc::clone(discovery);
            tasks.spawn(async move { discovery.first_answer(at, wait).await });
        }
    }
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(timeout, all).await.is_err() {
        let timeout_ms = timeout.as_millis();
        tracing::warn!(timeout_ms, "not every cluster has its first dns answer");
    }
    for discovery in discoveries {
        discovery.calm_down();
    }
}
