//! How an exchange comes through its filters: when they are asked, and what happens while one of them
//! waits or holds the request's body.

use std::{
    ops::ControlFlow,
    task::{Context, Poll},
};

use super::{
    connection::Flow,
    downstream::Downstream,
    exchange::{Exchange, ResponseState},
};
use crate::{
    filter::http::{
        Interest, Step, StreamContext,
        chain::{Hold, HttpChain, Passage},
        router::Router,
    },
    http::{
        h1::Framing, head::RequestHead, headers::Headers, local_reply::LocalReply,
        stream_info::StreamInfo,
    },
    stats::EndReason,
};

/// How far a request came.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Passed {
    /// All filters let it go on.
    Through,
    /// One of them holds it.
    Held,
}

impl Exchange {
    /// Asks the filters about the head of the request, from the first one on.
    pub(super) fn pass_filters(&mut self, down: &Downstream) -> Result<Passed, LocalReply> {
        let hcm = &down.hcm;
        if hcm.chain.is_empty() {
            return Ok(Passed::Through);
        }
        let (cluster, entry) = Router::cluster_of(&hcm.thread, &self.choice, &self.request);
        self.cluster = cluster;
        let levels = Router::filters(&self.choice, entry);
        self.passage = Passage::new(levels);
        self.ask(down, HttpChain::on_request)
    }

    fn ask(
        &mut self,
        down: &Downstream,
        ask: impl FnOnce(&HttpChain, &mut Passage, &mut RequestHead, &mut StreamContext<'_>) -> Step,
    ) -> Result<Passed, LocalReply> {
        let cluster = self.cluster.and_then(|at| down.hcm.thread.cluster(at));
        let cluster = cluster.as_ref().map(|cluster| &*cluster.name);
        let is_whole = self.request_body.is_none();
        let mut around = StreamContext { is_whole, cluster, ..surroundings(down, &mut self.info) };
        match ask(&down.hcm.chain, &mut self.passage, &mut self.request, &mut around) {
            Step::Continue => Ok(Passed::Through),
            Step::Buffer(limit) if self.framing_exceeds(limit) => Err(too_large(down)),
            Step::Wait | Step::Buffer(_) => Ok(Passed::Held),
            Step::Reply(reply) => Err(reply),
        }
    }

    /// The head says already that the body is longer than this.
    fn framing_exceeds(&self, limit: usize) -> bool {
        match self.framing {
            Framing::Length(length) => length > limit as u64,
            Framing::None | Framing::Chunked | Framing::UntilClose => false,
        }
    }

    /// Shows a response to the filters.
    pub(super) fn filter_response(&mut self, down: &Downstream) {
        if down.hcm.chain.is_empty() {
            return;
        }
        let Self { info, request, response, passage, .. } = self;
        let mut around = surroundings(down, info);
        down.hcm.chain.on_response(passage, (request, response), &mut around);
    }

    /// Shows the trailers of a request to the filters.
    pub(super) fn filter_request_trailers(&mut self, down: &Downstream, trailers: &mut Headers) {
        let chain = &down.hcm.chain;
        if !chain.interest().has(Interest::REQUEST_TRAILERS) || trailers.is_empty() {
            return;
        }
        let Self { info, request, passage, .. } = self;
        let mut around = surroundings(down, info);
        chain.on_request_trailers(passage, (request, trailers), &mut around);
    }

    /// Shows the trailers of a response to the filters.
    pub(super) fn filter_response_trailers(&mut self, down: &Downstream) {
        let chain = &down.hcm.chain;
        if !chain.interest().has(Interest::RESPONSE_TRAILERS) || self.trailers.is_empty() {
            return;
        }
        let Self { info, request, response, trailers, passage, .. } = self;
        let mut around = surroundings(down, info);
        chain.on_response_trailers(passage, (request, response), trailers, &mut around);
    }

    /// How many bytes of the response's body may go on now, if a filter holds it back.
    pub(super) fn response_pace(&mut self, down: &Downstream) -> Option<usize> {
        let is_paced =
            self.passage.paces() && matches!(self.response_state, ResponseState::Streaming { .. });
        if is_paced { self.passage.pace(down.now) } else { None }
    }

    /// Sends on what was read already and waits for its turn; `None` when more can be read.
    pub(super) fn read_paced(&mut self, down: &mut Downstream) -> Option<Flow> {
        match self.response_pace(down)? {
            0 => Some(ControlFlow::Continue(false)),
            _ if self.attempt.inbound.is_empty() => None,
            _ => Some(self.use_response_bytes(down)),
        }
    }

    /// A filter holds the request: what can be done meanwhile.
    #[cold]
    pub(super) fn drive_held(&mut self, down: &mut Downstream, cx: &mut Context<'_>) -> Flow {
        match self.passage.held() {
            Some(Hold::Body(limit)) => self.drive_held_body(down, limit, cx),
            Some(Hold::Filter) | None => self.poll_filter(down, cx),
        }
    }

    fn poll_filter(&mut self, down: &mut Downstream, cx: &mut Context<'_>) -> Flow {
        let mut pending = false;
        let passed = self.ask(down, |chain, passage, request, around| {
            match chain.poll(passage, request, around, cx) {
                Poll::Ready(step) => step,
                Poll::Pending => {
                    pending = true;
                    Step::Wait
                }
            }
        });
        if pending {
            // The client may have left. What it sends waits.
            let watches = down.inbound.is_empty() && !down.read_closed;
            return if watches { down.fill(cx) } else { ControlFlow::Continue(false) };
        }
        self.passed(down, passed);
        ControlFlow::Continue(true)
    }

    /// Collects the body in the queue for the upstream, which needs it anyhow.
    fn drive_held_body(
        &mut self,
        down: &mut Downstream,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Flow {
        let moved = match self.pump_request_body(down) {
            Ok(moved) => moved,
            Err(reply) => {
                self.reply(down, &reply);
                return ControlFlow::Continue(true);
            }
        };
        if self.attempt.out.len() > limit {
            let reply = too_large(down);
            self.reply(down, &reply);
            return ControlFlow::Continue(true);
        }
        if self.request_body.is_none() {
            let bytes = self.attempt.out.len();
            // All of it is known, so it needs no chunks.
            self.framing = Framing::Length(bytes as u64);
            self.request_chunked = false;
            let passed = self.ask(down, |chain, passage, request, around| {
                chain.on_request_whole(passage, request, around, bytes)
            });
            self.passed(down, passed);
            return ControlFlow::Continue(true);
        }
        if moved {
            return ControlFlow::Continue(true);
        }
        if down.read_closed {
            // The client left in the middle of its request.
            return ControlFlow::Break(EndReason::Client);
        }
        down.fill(cx)
    }

    /// The filter has decided.
    fn passed(&mut self, down: &mut Downstream, passed: Result<Passed, LocalReply>) {
        self.last_activity = down.now;
        match passed.and_then(|passed| self.route_onwards(down, passed)) {
            Ok(passed) => {
                let received = self.info.request_received.unwrap_or(down.now);
                let waited = down.now.saturating_duration_since(received);
                // The endpoint has all of its time, whatever the filters took.
                if let Some(timeout) = self.target.as_mut().and_then(|to| to.timeout.as_mut()) {
                    *timeout = timeout.saturating_add(waited);
                }
                self.forward(down, passed);
            }
            Err(reply) => self.reply(down, &reply),
        }
    }
}

fn too_large(down: &Downstream) -> LocalReply {
    down.hcm.stats.downstream_rq_too_large.inc();
    LocalReply::too_large()
}

fn surroundings<'a>(down: &'a Downstream, info: &'a mut StreamInfo) -> StreamContext<'a> {
    let thread = &down.hcm.thread;
    let node = &thread.bootstrap.node;
    StreamContext {
        info,
        of_route: &[],
        is_whole: false,
        cluster: None,
        now: down.now,
        random: &thread.random,
        node,
    }
}
