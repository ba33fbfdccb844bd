//! HTTP filters: what one is asked about a stream, and what it may answer.
//!
//! ```text
//! request head ──→ first ──→ … ──→ last ──→ router       on_request
//! response head ←── first ←── … ←── last ←── router      on_response
//! ```
//! One object serves a thread. A filter that has to remember something of a stream, to wait or to
//! hold a body makes an object for that stream ([`HttpFilter::begin`]); all others cost no memory.
//! How they follow each other is the business of [`chain`]; which ones there are, that of
//! `extension`.

use std::{
    any::Any,
    cell::RefCell,
    fmt::Debug,
    ops::BitOr,
    task::{Context, Poll},
    time::Instant,
};

use crate::{
    config::{model::Node, settings::SharedSettings},
    http::{
        head::{RequestHead, ResponseHead},
        headers::Headers,
        local_reply::LocalReply,
        stream_info::{LogContext, StreamInfo},
    },
};

pub mod chain;
pub mod router;

/// What a filter wants to be done with a request.
#[derive(Debug)]
pub enum Step {
    /// The next filter is asked.
    Continue,
    /// Nothing goes further until [`StreamFilter::poll`] is ready.
    Wait,
    /// Nothing goes further until the body is here whole: [`StreamFilter::on_request_whole`]. A body
    /// of more bytes is answered with 413.
    Buffer(usize),
    /// This is the answer; no later filter sees the request.
    Reply(LocalReply),
}

/// What of a stream a filter looks at besides the heads. What no filter of a chain looks at takes the
/// short way.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Interest(u8);

impl Interest {
    /// Heads only.
    pub const HEADS: Self = Self(0);
    /// It has an object for some streams.
    pub const STREAMS: Self = Self(1);
    /// Trailers of requests.
    pub const REQUEST_TRAILERS: Self = Self(2);
    /// Trailers of responses.
    pub const RESPONSE_TRAILERS: Self = Self(4);

    /// True when it has all of the other.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Interest {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a filter is told besides the message.
#[derive(Debug)]
pub struct StreamContext<'a> {
    /// The stream.
    pub info: &'a mut StreamInfo,
    /// Configurations of this filter on the route and around it, the most specific one last; the chain
    /// puts them in for each filter.
    pub of_route: &'a [SharedSettings],
    /// The request has no body.
    pub is_whole: bool,
    /// The cluster the route names, if it names one.
    pub cluster: Option<&'a str>,
    /// The clock.
    pub now: Instant,
    /// Random numbers.
    pub random: &'a RefCell<fastrand::Rng>,
    /// This node.
    pub node: &'a Node,
}

impl StreamContext<'_> {
    /// The same for a filter about which the route says this.
    fn of_filter<'s>(&'s mut self, of_route: &'s [SharedSettings]) -> StreamContext<'s> {
        StreamContext { info: self.info, of_route, ..*self }
    }

    /// All configurations of the route and around it, the most specific one last.
    pub fn settings<T: 'static>(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.of_route.iter().filter_map(|settings| {
            let any: &dyn Any = &**settings;
            any.downcast_ref()
        })
    }

    /// The most specific configuration of the route, or else `general`.
    pub fn settings_or<'s, T: 'static>(&'s self, general: &'s T) -> &'s T {
        self.settings().next_back().unwrap_or(general)
    }

    /// What format strings are evaluated against.
    pub fn log<'s>(&'s self, request: &'s RequestHead) -> LogContext<'s> {
        LogContext { request: Some(request), ..self.log_alone() }
    }

    /// The same without the request, for who changes it.
    pub fn log_alone(&self) -> LogContext<'_> {
        LogContext {
            info: self.info,
            request: None,
            response: None,
            trailers: None,
            now: self.now,
            node: self.node,
        }
    }

    /// True for `parts` of a million streams.
    pub fn chance(&self, parts: u32) -> bool {
        const WHOLE: u32 = 1_000_000;
        parts >= WHOLE || (parts > 0 && self.random.borrow_mut().u32(..WHOLE) < parts)
    }
}

/// A filter of one thread.
pub trait HttpFilter: Debug {
    /// What it looks at besides heads.
    fn interest(&self) -> Interest {
        Interest::HEADS
    }

    /// A request head came; it may be changed.
    fn on_request(&self, _request: &mut RequestHead, _cx: &mut StreamContext<'_>) -> Step {
        Step::Continue
    }

    /// An object for this stream, whose methods are called from now on, if it needs one. Asked in the
    /// place of [`Self::on_request`], and only with [`Interest::STREAMS`].
    fn begin(
        &self,
        _request: &RequestHead,
        _cx: &mut StreamContext<'_>,
    ) -> Option<Box<dyn StreamFilter>> {
        None
    }

    /// Trailers of a request came; only with [`Interest::REQUEST_TRAILERS`].
    fn on_request_trailers(
        &self,
        _request: &RequestHead,
        _trailers: &mut Headers,
        _cx: &mut StreamContext<'_>,
    ) {
    }

    /// A response head is about to be sent, also one of an answer of ours; it may be changed. Called in
    /// reverse order, of every filter that is switched on.
    fn on_response(
        &self,
        _request: &RequestHead,
        _response: &mut ResponseHead,
        _cx: &mut StreamContext<'_>,
    ) {
    }

    /// Trailers of a response came; only with [`Interest::RESPONSE_TRAILERS`].
    fn on_response_trailers(
        &self,
        _request: &RequestHead,
        _response: &ResponseHead,
        _trailers: &mut Headers,
        _cx: &mut StreamContext<'_>,
    ) {
    }
}

/// A filter's part of one stream. Dropped with the stream.
pub trait StreamFilter: Debug {
    /// The request head; it may be changed.
    fn on_request(&mut self, _request: &mut RequestHead, _cx: &mut StreamContext<'_>) -> Step {
        Step::Continue
    }

    /// After [`Step::Wait`]: ready with what is to be done now. It is asked whenever the connection is
    /// looked after, and when [`Self::wake_at`] has come.
    fn poll(
        &mut self,
        _request: &mut RequestHead,
        _cx: &mut StreamContext<'_>,
        _waker: &mut Context<'_>,
    ) -> Poll<Step> {
        Poll::Ready(Step::Continue)
    }

    /// After [`Step::Wait`], and while [`Self::pace`] says 0: when it wants to be asked again.
    fn wake_at(&self) -> Option<Instant> {
        None
    }

    /// After [`Step::Buffer`]: the body is here, of so many bytes.
    fn on_request_whole(
        &mut self,
        _request: &mut RequestHead,
        _cx: &mut StreamContext<'_>,
        _bytes: usize,
    ) -> Step {
        Step::Continue
    }

    /// True when it holds the response's body back: [`Self::pace`] is asked. Such a body is copied.
    fn paces(&self) -> bool {
        false
    }

    /// How many bytes of the response's body may go on now; what went on is said by [`Self::passed`].
    fn pace(&mut self, _now: Instant) -> usize {
        usize::MAX
    }

    /// So many bytes of the response's body went on.
    fn passed(&mut self, _bytes: usize) {}

    /// False while it cannot be forgotten: the connection then stays in this process.
    fn may_move(&self) -> bool {
        true
    }
}
