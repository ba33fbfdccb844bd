//! What the clients counted.
#![expect(clippy::format_push_string, reason = "one table at the end")]

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Examples of losses that are kept for the report.
const EXAMPLES: usize = 5;

/// What a client does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Workload {
    /// A connection for each request.
    Fresh,
    /// Many requests on a connection, with pauses.
    KeepAlive,
    /// A body sent over seconds.
    Upload,
    /// A body received over seconds.
    Download,
    /// Messages on an upgraded connection.
    WebSocket,
    /// Bytes through `tcp_proxy`.
    Tunnel,
}

/// How an exchange ended.
#[derive(Debug)]
pub(super) enum End {
    /// Every byte was right; it took this long.
    Ok(Duration),
    /// No answer, or a wrong one.
    Lost(String),
    /// A long exchange broke off in the middle.
    Cut(String),
}

/// Sums of one workload, or of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    pub ok: u64,
    pub lost: u64,
    pub cut: u64,
    /// Connections the proxy announced it would close, which is its right.
    pub announced: u64,
    /// Times of good exchanges, microseconds.
    times: Vec<u64>,
}

/// All sums.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    sums: [Sums; Workload::ALL.len()],
    examples: Vec<String>,
}

impl Workload {
    const ALL: [Self; 6] =
        [Self::Fresh, Self::KeepAlive, Self::Upload, Self::Download, Self::WebSocket, Self::Tunnel];

    const fn name(self) -> &'static str {
        match self {
            Self::Fresh => "connection per request",
            Self::KeepAlive => "keep-alive",
            Self::Upload => "slow uploads",
            Self::Download => "long downloads",
            Self::WebSocket => "WebSocket messages",
            Self::Tunnel => "TCP tunnel messages",
        }
    }
}

impl Tally {
    /// Counts the end of an exchange.
    pub(super) fn ended(&self, workload: Workload, end: End) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let State { sums, examples } = &mut *state;
        let Some(sums) = sums.get_mut(workload as usize) else { return };
        let text = match end {
            End::Ok(time) => {
                sums.ok += 1;
                sums.times.push(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
                return;
            }
            End::Lost(text) => {
                sums.lost += 1;
                text
            }
            End::Cut(text) => {
                sums.cut += 1;
                text
            }
        };
        if examples.len() < EXAMPLES {
            examples.push(format!("{}: {text}", workload.name()));
        }
    }

    /// The proxy said that it closes a connection.
    pub(super) fn announced(&self, workload: Workload) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sums) = state.sums.get_mut(workload as usize) {
            sums.announced += 1;
        }
    }

    /// Everything so far, without the times.
    pub(super) fn total(&self) -> Sums {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut total = Sums::default();
        for sums in &state.sums {
            total.ok += sums.ok;
            total.lost += sums.lost;
            total.cut += sums.cut;
            total.announced += sums.announced;
        }
        total
    }

    /// What the first losses were.
    pub(super) fn examples(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).examples.clone()
    }

    /// One line for each workload.
    pub(super) fn table(&self) -> String {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = format!(
            "  {:<24}{:>8}{:>6}{:>5}{:>17}{:>11}{:>11}\n",
            "", "ok", "lost", "cut", "announced closes", "p99", "longest"
        );
        for (workload, sums) in Workload::ALL.into_iter().zip(&mut state.sums) {
            sums.times.sort_unstable();
            text.push_str(&format!(
                "  {:<24}{:>8}{:>6}{:>5}{:>17}{:>11}{:>11}\n",
                workload.name(),
                sums.ok,
                sums.lost,
                sums.cut,
                sums.announced,
                millis(sums.at(99)),
                millis(sums.at(100)),
            ));
        }
        text
    }
}

impl Sums {
    /// `1234 ok, 0 lost, 0 cut, 3 announced closes`.
    pub(super) fn line(&self) -> String {
        let Self { ok, lost, cut, announced, .. } = self;
        format!("clients so far: {ok} ok, {lost} lost, {cut} cut, {announced} announced closes")
    }

    /// The time that `percent` of the exchanges did not exceed. Times must be sorted.
    fn at(&self, percent: usize) -> Option<u64> {
        let index = (self.times.len() * percent).div_ceil(100).checked_sub(1)?;
        self.times.get(index).copied()
    }
}

fn millis(micros: Option<u64>) -> String {
    micros.map_or_else(|| "-".to_owned(), |m| format!("{}.{} ms", m / 1000, m % 1000 / 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_and_the_first_ones_kept() {
        let tally = Tally::default();
        for ms in 1..=100 {
            tally.ended(Workload::Fresh, End::Ok(Duration::from_millis(ms)));
        }
        tally.ended(Workload::Tunnel, End::Cut("gone".to_owned()));
        let total = tally.total();
        assert_eq!((total.ok, total.lost, total.cut), (100, 0, 1));
        assert_eq!(tally.examples(), ["TCP tunnel messages: gone"]);
        assert!(tally.table().contains("99.0 ms   100.0 ms"), "{}", tally.table());
    }
}
