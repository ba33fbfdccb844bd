//! Keeps a number of connections busy, as fast as they go or at a fixed rate.
//!
//! At a fixed rate request `n` is due `n` intervals after the start, whatever became of those before
//! it, and its time counts from then: a proxy that stops for a moment makes every request that was
//! due in that moment late, as it does to real users (no coordinated omission).

use crate::clock::now;
use crate::connection::{Connection, Step, Way};
use crate::exchange::Exchange;
use crate::outcome::{Failure, Outcome};
use crate::poll::{Interest, Poll, Ticker};
use nix::sys::epoll::EpollTimeout;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A read takes up to this many bytes: an answer of 64 KiB in one.
const BUFFER_BYTES: usize = 256 * 1024;
/// After the end, answers are waited for this long.
const GRACE: Duration = Duration::from_secs(3);
/// Fewest time between two ticks; more than one request may be due at a tick.
const TICK_MIN: Duration = Duration::from_micros(50);
/// A run with more errors than this tells nothing and ends.
const ERRORS_MAX: u64 = 1000;
/// The token of the ticker; connections have lower ones.
const TICKER: usize = usize::MAX - 1;

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// Each connection sends as soon as it has its answer.
    Closed,
    /// All together send this many in a second.
    PerSecond(f64),
}

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The proxy.
    pub(crate) target: SocketAddr,
    /// Connections at most.
    pub(crate) connections: usize,
    /// What they say.
    pub(crate) exchange: Exchange,
    /// Whether each exchange has a connection of its own.
    pub(crate) once: bool,
    /// When they say it.
    pub(crate) pace: Pace,
    /// How long requests are sent.
    pub(crate) time: Duration,
    /// How long at the beginning the times of requests do not count.
    pub(crate) warmup: Duration,
}

/// Runs until the time is over and all answers are there.
pub(crate) fn run(plan: &Plan) -> Outcome {
    let mut poll = Poll::new();
    let ticker = match plan.pace {
        Pace::Closed => None,
        Pace::PerSecond(rate) => Some(Ticker::new(interval(rate).max(TICK_MIN))),
    };
    if let Some(ticker) = &ticker {
        poll.add(ticker, TICKER, Interest::Read).expect("a waiting timer");
    }
    let mut engine = Engine::new(plan, now());
    let mut buffer = vec![0; BUFFER_BYTES];
    engine.pump(&poll, now());
    while !engine.is_over(now()) {
        let count = poll.wait(EpollTimeout::from(10_u8));
        for index in 0..count {
            match (poll.token(index), &ticker) {
                (TICKER, Some(ticker)) => ticker.take(),
                (token, _) => engine.handle(&poll, token, &mut buffer),
            }
            engine.pump(&poll, now());
        }
        if count == 0 {
            engine.pump(&poll, now());
        }
    }
    engine.finish()
}

fn interval(rate: f64) -> Duration {
    Duration::try_from_secs_f64(rate.recip()).unwrap_or(Duration::from_secs(1))
}

struct Engine<'a> {
    plan: &'a Plan,
    connections: Vec<Connection>,
    /// Those without an exchange, the one that waits longest first.
    free: VecDeque<usize>,
    begin: Instant,
    /// When the last answer came.
    last: Instant,
    /// Requests begun.
    begun: u64,
    outcome: Outcome,
}

impl<'a> Engine<'a> {
    fn new(plan: &'a Plan, begin: Instant) -> Self {
        Self {
            plan,
            connections: (0..plan.connections).map(|token| Connection::new(token, begin)).collect(),
            free: (0..plan.connections).collect(),
            begin,
            last: begin,
            begun: 0,
            outcome: Outcome::default(),
        }
    }

    fn way<'b>(plan: &'b Plan, poll: &'b Poll) -> Way<'b> {
        Way { target: plan.target, exchange: &plan.exchange, once: plan.once, poll }
    }

    /// When the next request is due, if it is before the end.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        let due = match self.plan.pace {
            Pace::Closed => now,
            Pace::PerSecond(rate) => self.begin + due_after(self.begun, rate),
        };
        (due < self.begin + self.plan.time).then_some(due)
    }

    /// Begins what is due as long as there are free connections.
    fn pump(&mut self, poll: &Poll, now: Instant) {
        // A connection that fails at once is free again; its turn comes with the next event.
        for _ in 0..self.free.len() {
            let Some(due) = self.next_due(now).filter(|due| *due <= now) else { return };
            let Some(token) = self.free.pop_front() else { return };
            let Some(connection) = self.connections.get_mut(token) else { return };
            let number = usize::try_from(self.begun).unwrap_or(0);
            self.begun += 1;
            self.outcome.connections += u64::from(connection.is_closed());
            let step = connection.start(&Self::way(self.plan, poll), number, due);
            self.after(token, step);
        }
    }

    fn handle(&mut self, poll: &Poll, token: usize, buffer: &mut [u8]) {
        let Some(connection) = self.connections.get_mut(token) else { return };
        let way = Self::way(self.plan, poll);
        let step = connection.ready(&way, buffer, &mut self.outcome.bytes);
        self.after(token, step);
    }

    fn after(&mut self, token: usize, step: Step) {
        match step {
            Step::Wait | Step::Ended => return,
            Step::Done => {
                let now = now();
                self.last = now;
                self.outcome.exchanges += 1;
                let due = self.connections.get(token).map_or(now, |connection| connection.due);
                if due >= self.begin + self.plan.warmup {
                    self.outcome.latency.record(now.saturating_duration_since(due));
                }
            }
            Step::Failed(failure) => self.outcome.fail(failure),
        }
        self.free.push_back(token);
    }

    fn is_over(&self, now: Instant) -> bool {
        let end = self.begin + self.plan.time;
        let all_free = self.free.len() == self.connections.len() && self.next_due(now).is_none();
        now >= end && (all_free || now >= end + GRACE) || self.outcome.errors() > ERRORS_MAX
    }

    /// The figures; requests that are begun or due but not answered are failures.
    fn finish(mut self) -> Outcome {
        let busy = (self.connections.len() - self.free.len()) as u64;
        let mut unanswered = busy;
        if let Pace::PerSecond(rate) = self.plan.pace {
            let end = self.plan.time;
            while due_after(self.begun, rate) < end {
                self.begun += 1;
                unanswered += 1;
            }
        }
        self.outcome.fail_many(Failure::Unanswered, unanswered);
        self.outcome.time = self.last.saturating_duration_since(self.begin);
        self.outcome
    }
}

#[expect(clippy::cast_precision_loss, reason = "a run has far less than 2^52 requests")]
fn due_after(number: u64, rate: f64) -> Duration {
    Duration::try_from_secs_f64(number as f64 / rate).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend;
    use crate::exchange::Request;

    fn plan(target: SocketAddr, exchange: Exchange, pace: Pace) -> Plan {
        let time = Duration::from_millis(100);
        Plan { target, connections: 4, exchange, once: false, pace, time, warmup: Duration::ZERO }
    }

    fn get(path: &str, length: usize) -> Exchange {
        let bytes = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes();
        Exchange::Http(vec![Request { bytes, length: Some(length) }])
    }

    #[test]
    fn requests_are_due_at_their_interval() {
        assert_eq!(due_after(0, 1000.0), Duration::ZERO);
        assert_eq!(due_after(1500, 1000.0), Duration::from_millis(1500));
        assert_eq!(interval(4.0), Duration::from_millis(250));
    }

    #[test]
    fn every_kind_of_exchange_works_without_a_proxy() {
        let ports = backend::start_thread();
        let check = |exchange: Exchange, target: SocketAddr, once: bool| {
            let plan = Plan { once, ..plan(target, exchange, Pace::Closed) };
            // On a busy machine each connection may have one turn only in such a short run.
            let repeated = (0..100).map(|_| run(&plan)).any(|outcome| {
                assert_eq!(outcome.errors(), 0, "{}", outcome.json());
                assert_eq!(
                    outcome.connections == outcome.exchanges,
                    once || outcome.exchanges == 4
                );
                outcome.exchanges > 4
            });
            assert!(repeated, "no run had more exchanges than connections");
        };
        let body = "x".repeat(100_000);
        let post = format!("POST / HTTP/1.1\r\ncontent-length: 100000\r\n\r\n{body}").into_bytes();
        check(get("/any/bytes/1000", 1000), ports.http, false);
        check(get("/bytes/300000", 300_000), ports.http, false);
        check(get("/bytes/0", 0), ports.http, true);
        check(Exchange::Http(vec![Request { bytes: post, length: Some(6) }]), ports.http, false);
        check(Exchange::websocket("/ws", 64), ports.http, false);
        check(Exchange::echo(), ports.tcp, true);
    }

    #[test]
    fn a_fixed_rate_is_kept() {
        let ports = backend::start_thread();
        let outcome = run(&plan(ports.http, get("/bytes/10", 10), Pace::PerSecond(500.0)));
        assert_eq!((outcome.exchanges, outcome.errors()), (50, 0), "{}", outcome.json());
    }

    #[test]
    fn wrong_answers_are_counted() {
        let ports = backend::start_thread();
        let outcome = run(&plan(ports.http, get("/bytes/11", 10), Pace::PerSecond(100.0)));
        assert_eq!((outcome.exchanges, outcome.errors()), (0, 10), "{}", outcome.json());
        let outcome = run(&plan(ports.http, get("/nothing", 0), Pace::PerSecond(100.0)));
        assert_eq!((outcome.exchanges, outcome.errors()), (0, 10), "{}", outcome.json());
    }
}
