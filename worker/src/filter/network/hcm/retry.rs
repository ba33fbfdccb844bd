//! Further tries of a request (`retry_policy`): what ended a try, whether there is another, and when.
//!
//! ```text
//! attempt ── it ended, and another is wanted ──→ back-off ──→ the next, at an endpoint chosen anew
//!                                    └── none is wanted, or none is left ──→ the answer
//! ```
//! What is decided here is in [`crate::route::retry`]; here is what it does to the exchange.

mod frozen;

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

pub(super) use self::frozen::{freeze, thaw};
use super::{
    attempt::{Attempt, Link},
    connecting::Source,
    connection::Flow,
    downstream::Downstream,
    exchange::Exchange,
    hedge::Hedge,
    retained::Retained,
};
use crate::{
    clock,
    cluster::{
        Endpoint,
        balance::{Further, PickContext},
    },
    filter::network::life,
    http::{h1::Framing, local_reply::LocalReply, stream_info::ResponseFlags},
    route::retry::{Decision, ResetKind, Tries},
    stats::EndReason,
    thread::ThreadCluster,
};

/// The tries of a request that may have more than one, or whose tries are limited each.
#[derive(Debug)]
pub(super) struct Retrying {
    pub(super) tries: Tries,
    /// Numbers of the endpoints that were tried.
    tried: Vec<u64>,
    /// When the back-off ends.
    pub(super) due: Option<Instant>,
    /// Since when the present try has a connection.
    pub(super) connected: Option<Instant>,
    /// When something moved between us and the endpoint last.
    pub(super) moved: Instant,
    /// The last try was over its time.
    timed_out: bool,
    /// There was a retry.
    again: bool,
    /// Those that go on beside the present try.
    pub(super) hedge: Hedge,
}

/// What limits the present try.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TryLimit {
    /// The back-off is over.
    BackOff,
    /// `per_try_timeout`.
    Timeout,
    /// `per_try_idle_timeout`.
    Idle,
}

impl Retrying {
    /// Nothing was tried yet.
    pub(super) fn new(tries: Tries, now: Instant) -> Self {
        Self {
            tries,
            tried: Vec::new(),
            due: None,
            connected: None,
            moved: now,
            timed_out: false,
            again: false,
            hedge: Hedge::default(),
        }
    }

    /// The present try has a connection.
    pub(super) fn is_connected(&mut self) {
        let now = clock::now();
        (self.connected, self.moved) = (Some(now), now);
    }
}

impl Exchange {
    /// Prepares for more than one try, if the route or the request asks for it.
    pub(super) fn begin_tries(&mut self, down: &Downstream) {
        let Some(tries) = self.target.as_mut().and_then(|target| target.tries.take()) else {
            return;
        };
        let limit = tries.options.body_limit;
        self.retrying = Some(Box::new(Retrying::new(*tries, down.now)));
        if self.has_retries() && !self.framing.is_empty() {
            let limit = limit.map_or(down.buffer_limit_bytes, |limit| {
                usize::try_from(limit).unwrap_or(usize::MAX)
            });
            self.retain_up_to(limit);
        }
    }

    /// Keeps the body, if it can be known that it is not too large.
    pub(super) fn retain_up_to(&mut self, limit_bytes: usize) {
        let retained = Retained::new(limit_bytes);
        match self.framing {
            Framing::Length(length) if !retained.has_room_for(length) => self.abandon_copies(),
            Framing::None | Framing::Length(_) | Framing::Chunked | Framing::UntilClose => {
                self.retained.get_or_insert(retained);
            }
        }
    }

    /// Whether another try could be made.
    fn has_retries(&self) -> bool {
        self.retrying.as_ref().is_some_and(|retrying| retrying.tries.retry.is_some())
    }

    /// It can go on in another process: it does not wait for something that only this one has.
    pub(super) fn may_move(&self) -> bool {
        let backs_off = self.retrying.as_ref().is_some_and(|retrying| retrying.due.is_some());
        let hedges = self.retrying.as_ref().is_some_and(|retrying| !retrying.hedge.is_empty());
        !backs_off && !hedges && !matches!(self.attempt.link, Link::Opening(..))
    }

    /// There is no further try, whatever becomes of this one.
    pub(super) fn give_up_retries(&mut self) {
        if let Some(retrying) = &mut self.retrying {
            retrying.tries.retry = None;
        }
    }

    /// The endpoint of the next try.
    pub(super) fn pick(&mut self, cluster: &ThreadCluster) -> Option<Arc<Endpoint>> {
        let Some(retrying) = &mut self.retrying else { return cluster.pick() };
        let policy = retrying.tries.options.policy.as_deref();
        let avoids = policy.filter(|policy| policy.avoid_previous_hosts);
        let endpoint = match avoids {
            Some(policy) if !retrying.tried.is_empty() => cluster.pick_with(&PickContext {
                tried: &retrying.tried,
                further: Further::Choices(policy.host_selection_attempts),
            }),
            Some(_) | None => cluster.pick(),
        }?;
        retrying.tried.push(endpoint.id);
        Some(endpoint)
    }

    /// Says in the request which try it is, and how long it may take.
    pub(super) fn count_attempt(&mut self, down: &Downstream) {
        let Some(retrying) = &self.retrying else { return };
        if let (true, Some(target), Some(received)) =
            (retrying.again, &self.target, self.info.request_received)
        {
            let passed = down.now.saturating_duration_since(received);
            down.hcm.router.add_timeout_header(target, passed, &mut self.request);
        }
        let tells = retrying.tries.options.tells;
        if tells.count_in_request {
            let number = self.info.upstream.as_ref().map_or(1, |upstream| upstream.attempts);
            let mut digits = itoa::Buffer::new();
            let number = digits.format(number).as_bytes();
            self.request.headers.set(b"x-envoy-attempt-count", number);
        }
        if tells.timeout_retry && retrying.again {
            let timed_out: &[u8] = if retrying.timed_out { b"true" } else { b"false" };
            self.request.headers.set(b"x-envoy-is-timeout-retry", timed_out);
        }
    }

    /// Says in the response how many tries there were.
    pub(super) fn tell_attempts(&mut self) {
        let Some(upstream) = &self.info.upstream else { return };
        if self.retrying.as_ref().is_some_and(|r| r.tries.options.tells.count_in_response) {
            let mut digits = itoa::Buffer::new();
            let number = digits.format(upstream.attempts).as_bytes();
            self.response.headers.set(b"x-envoy-attempt-count", number);
        }
    }

    /// A try ended without an answer: another one is made, or this is the answer.
    pub(super) fn attempt_failed(
        &mut self,
        down: &mut Downstream,
        kind: ResetKind,
        reply: &LocalReply,
    ) {
        if self.response_waiting() && self.try_again(down, Ended::By(kind)) {
            return;
        }
        let again = self.retrying.as_ref().is_some_and(|retrying| retrying.again);
        if again { self.reply(down, &reply.clone().retried()) } else { self.reply(down, reply) }
    }

    /// The head of an answer is here: true when the answer is not taken, as another try is made.
    pub(super) fn refuses_answer(&mut self, down: &Downstream) -> bool {
        self.retrying.is_some() && self.try_again(down, Ended::Answered)
    }

    /// Whether the policy has another try for one that ends so.
    pub(super) fn retries(&self, kind: ResetKind) -> bool {
        let retry = self.retrying.as_ref().and_then(|retrying| retrying.tries.retry.as_ref());
        retry.is_some_and(|retry| retry.left() > 0 && retry.wants_after_reset(kind))
    }

    /// Whether a try that ended so asks for another one.
    fn wants_another(&self, ended: Ended) -> bool {
        let retry = self.retrying.as_ref().and_then(|retrying| retrying.tries.retry.as_ref());
        retry.is_some_and(|retry| match ended {
            Ended::Answered => retry.wants_after_head(&self.response),
            Ended::By(kind) => retry.wants_after_reset(kind),
        })
    }

    fn try_again(&mut self, down: &Downstream, ended: Ended) -> bool {
        let wants = self.wants_another(ended);
        let is_reset = matches!(ended, Ended::By(_));
        if (wants || is_reset) && self.leaves_it_to_others() {
            return true;
        }
        if !self.takes_retry(wants) {
            return false;
        }
        if let (Ended::Answered, Some(target)) = (ended, &self.target) {
            target.cluster.stats.retried_response(self.response.status);
            self.attempt.count_response(self.response.status);
        }
        let wait = self.wait(matches!(ended, Ended::Answered), down);
        // Whoever still answers on its connection would answer to nobody.
        drop(self.schedule(down, wait, matches!(ended, Ended::By(ResetKind::PerTryTimeout))));
        true
    }

    /// Takes one of the retries, if another try is wanted; false when there is none.
    pub(super) fn takes_retry(&mut self, wants: bool) -> bool {
        let (Some(retrying), Some(target)) = (&mut self.retrying, &self.target) else {
            return false;
        };
        let Some(retry) = &mut retrying.tries.retry else { return false };
        let stats = &target.cluster.stats;
        match retry.decide(wants, || true) {
            Decision::Retry => return true,
            Decision::NoCondition => {
                if retrying.again {
                    stats.upstream_rq_retry_success.inc();
                }
            }
            Decision::LimitExceeded => {
                stats.upstream_rq_retry_limit_exceeded.inc();
                self.info.flags.set(ResponseFlags::RETRY_LIMIT);
            }
            // Asked for no room.
            Decision::Overflow => {}
        }
        false
    }

    /// How long the next try has to wait. An answer that was refused may say it.
    pub(super) fn wait(&mut self, answered: bool, down: &Downstream) -> Duration {
        let random = down.hcm.thread.random.borrow_mut().u64(..);
        let response = answered.then_some(&self.response);
        let retry = self.retrying.as_mut().and_then(|retrying| retrying.tries.retry.as_mut());
        let wait = retry.map(|retry| retry.wait(response, clock::wall(), random));
        if let (Some(wait), Some(target)) = (wait, &self.target) {
            let stats = &target.cluster.stats;
            let counter = if wait.is_named {
                &stats.upstream_rq_retry_backoff_ratelimited
            } else {
                &stats.upstream_rq_retry_backoff_exponential
            };
            counter.inc();
        }
        wait.map(|wait| wait.time).unwrap_or_default()
    }

    /// Makes place for the next try, which begins when the back-off is over; the present one.
    pub(super) fn schedule(
        &mut self,
        down: &Downstream,
        wait: Duration,
        timed_out: bool,
    ) -> Attempt {
        if let Some(target) = &self.target {
            target.cluster.stats.upstream_rq_retry.inc();
        }
        if let Some(upstream) = &mut self.info.upstream {
            upstream.attempts = upstream.attempts.saturating_add(1);
        }
        if let Some(retrying) = &mut self.retrying {
            retrying.due = Some(down.now + wait);
            retrying.connected = None;
            retrying.timed_out = timed_out;
            retrying.again = true;
        }
        if life::told() {
            life::upstream(down.stream_id(), None, "it is tried again");
        }
        let next = Attempt::new(&down.hcm.thread.buffers);
        let ended = std::mem::replace(&mut self.attempt, next);
        if let Some(retained) = &self.retained {
            let whole = self.request_body.is_none();
            self.attempt.out.extend(&retained.encode(self.request_chunked, whole));
        }
        self.response.clear();
        ended
    }

    /// Bytes moved between us and the endpoint.
    pub(super) fn endpoint_moved(&mut self, now: Instant) {
        self.last_activity = now;
        if let Some(retrying) = &mut self.retrying {
            retrying.moved = now;
        }
    }

    /// What limits the present try next.
    pub(super) fn try_limit(&self) -> Option<(Instant, TryLimit)> {
        let retrying = self.retrying.as_ref()?;
        if let Some(due) = retrying.due {
            return Some((due, TryLimit::BackOff));
        }
        let per_try = &retrying.tries.per_try;
        let begun = retrying.connected.zip(self.info.request_received);
        let begun = begun.map(|(connected, received)| connected.max(received));
        let timeout = per_try.timeout.filter(|_| self.response_waiting()).zip(begun);
        let timeout = timeout.map(|(limit, begun)| (begun + limit, TryLimit::Timeout));
        let idle = per_try.idle.filter(|_| retrying.connected.is_some());
        let idle = idle.map(|limit| (retrying.moved + limit, TryLimit::Idle));
        timeout.into_iter().chain(idle).min_by_key(|(at, _)| *at)
    }

    /// Acts on what limits the present try.
    pub(super) fn try_limit_reached(&mut self, down: &mut Downstream, limit: TryLimit) -> Flow {
        let Some(target) = &self.target else { return ControlFlow::Continue(true) };
        let stats = &target.cluster.stats;
        match limit {
            TryLimit::BackOff => {
                if let Some(retrying) = &mut self.retrying {
                    retrying.due = None;
                }
                self.begin_attempt(down, Source::Pool);
            }
            TryLimit::Timeout => {
                if self.hedges(down) {
                    return ControlFlow::Continue(true);
                }
                if let Some(target) = &self.target {
                    target.cluster.stats.upstream_rq_per_try_timeout.inc();
                }
                let reply = LocalReply::upstream_try_timeout("upstream_per_try_timeout");
                self.attempt_failed(down, ResetKind::PerTryTimeout, &reply);
            }
            TryLimit::Idle => {
                stats.upstream_rq_per_try_idle_timeout.inc();
                let reply = LocalReply::upstream_try_timeout("upstream_per_try_idle_timeout");
                self.attempt_failed(down, ResetKind::PerTryTimeout, &reply);
            }
        }
        ControlFlow::<EndReason, _>::Continue(true)
    }
}

/// How a try ended.
#[derive(Clone, Copy, Debug)]
enum Ended {
    /// With an answer, whose head is here.
    Answered,
    /// Without one.
    By(ResetKind),
}
