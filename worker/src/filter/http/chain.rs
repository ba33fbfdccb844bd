//! The filters of a connection manager before the router, and how far a stream came through them.

use std::{
    rc::Rc,
    task::{Context, Poll},
    time::Instant,
};

use super::{HttpFilter, Interest, Step, StreamContext, StreamFilter};
use crate::{
    config::{route::FilterLevels, settings::SharedSettings},
    http::{
        head::{RequestHead, ResponseHead},
        headers::Headers,
    },
};

/// A filter and whether it is in use where no route says so.
#[derive(Debug)]
pub struct Entry {
    /// The filter.
    pub filter: Box<dyn HttpFilter>,
    /// `disabled` of the chain.
    pub disabled: bool,
}

/// The filters of a connection manager before the router.
#[derive(Clone, Debug, Default)]
pub struct HttpChain {
    entries: Rc<[Entry]>,
    interest: Interest,
}

/// How far a stream came through the chain, and what its filters remember of it.
#[derive(Debug, Default)]
pub struct Passage {
    /// What the route says about the filters.
    levels: FilterLevels,
    /// Objects of this stream, by the position of their filter; empty until there is one.
    streams: Vec<Option<Box<dyn StreamFilter>>>,
    /// The filter that stopped the stream, and why.
    held: Option<(usize, Hold)>,
}

/// What a stream waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hold {
    /// What the filter waits for.
    Filter,
    /// The end of the body, of at most so many bytes.
    Body(usize),
}

impl Passage {
    /// A stream whose route says this about the filters.
    pub fn new(levels: FilterLevels) -> Self {
        Self { levels, streams: Vec::new(), held: None }
    }

    /// What the stream waits for.
    pub fn held(&self) -> Option<Hold> {
        self.held.map(|(_, hold)| hold)
    }

    /// It waits for nothing any more: it was answered.
    pub fn release(&mut self) {
        self.held = None;
    }

    /// Nothing of it is here that another process would not have.
    pub fn may_move(&self) -> bool {
        self.held.is_none() && self.streams.iter().flatten().all(|stream| stream.may_move())
    }

    /// When a filter wants to be asked again.
    pub fn wake_at(&self) -> Option<Instant> {
        self.streams.iter().flatten().filter_map(|stream| stream.wake_at()).min()
    }

    /// True when a filter holds the response's body back.
    pub fn paces(&self) -> bool {
        self.streams.iter().flatten().any(|stream| stream.paces())
    }

    /// How many bytes of the response's body may go on now; `None` = as many as there are.
    pub fn pace(&mut self, now: Instant) -> Option<usize> {
        let pacing = self.streams.iter_mut().flatten().filter(|stream| stream.paces());
        pacing.map(|stream| stream.pace(now)).min()
    }

    /// So many bytes of the response's body went on.
    pub fn passed(&mut self, bytes: usize) {
        for stream in self.streams.iter_mut().flatten() {
            stream.passed(bytes);
        }
    }

    fn is_disabled(&self, at: usize, in_chain: bool) -> bool {
        let said = self.levels.as_ref().and_then(|levels| levels.get(at)?.disabled);
        said.unwrap_or(in_chain)
    }

    fn of_route(levels: &FilterLevels, at: usize) -> &[SharedSettings] {
        levels.as_ref().and_then(|levels| levels.get(at)).map_or(&[], |level| &level.settings)
    }

    fn stream(&mut self, at: usize) -> Option<&mut Box<dyn StreamFilter>> {
        self.streams.get_mut(at)?.as_mut()
    }
}

impl HttpChain {
    /// A chain of these filters. The router is not among them.
    pub fn new(entries: Vec<Entry>) -> Self {
        let interests = entries.iter().map(|entry| entry.filter.interest());
        let interest = interests.fold(Interest::HEADS, |all, one| all | one);
        Self { entries: entries.into(), interest }
    }

    /// There is nothing to be asked.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What any filter looks at.
    pub fn interest(&self) -> Interest {
        self.interest
    }

    /// Asks the filters in order until one does not let the request go on. `Wait` and `Buffer` are kept
    /// in the passage.
    pub fn on_request(
        &self,
        passage: &mut Passage,
        request: &mut RequestHead,
        around: &mut StreamContext<'_>,
    ) -> Step {
        self.go_on(0, passage, request, around)
    }

    fn go_on(
        &self,
        from: usize,
        passage: &mut Passage,
        request: &mut RequestHead,
        around: &mut StreamContext<'_>,
    ) -> Step {
        for (at, entry) in self.entries.iter().enumerate().skip(from) {
            if passage.is_disabled(at, entry.disabled) {
                continue;
            }
            let mut cx = around.of_filter(Passage::of_route(&passage.levels, at));
            let step = if entry.filter.interest().has(Interest::STREAMS) {
                let Some(mut stream) = entry.filter.begin(request, &mut cx) else { continue };
                let step = stream.on_request(request, &mut cx);
                passage.streams.resize_with(self.entries.len(), || None);
                if let Some(place) = passage.streams.get_mut(at) {
                    *place = Some(stream);
                }
                step
            } else {
                entry.filter.on_request(request, &mut cx)
            };
            if !Self::goes_on(at, &step, passage) {
                return step;
            }
        }
        Step::Continue
    }

    /// Remembers why the stream is held.
    fn goes_on(at: usize, step: &Step, passage: &mut Passage) -> bool {
        passage.held = match step {
            Step::Continue | Step::Reply(_) => None,
            Step::Wait => Some((at, Hold::Filter)),
            Step::Buffer(limit) => Some((at, Hold::Body(*limit))),
        };
        matches!(step, Step::Continue)
    }

    /// Asks the filter that waits, and goes on behind it when it does not any more.
    pub fn poll(
        &self,
        passage: &mut Passage,
        request: &mut RequestHead,
        around: &mut StreamContext<'_>,
        waker: &mut Context<'_>,
    ) -> Poll<Step> {
        let Some((at, Hold::Filter)) = passage.held else { return Poll::Pending };
        let levels = passage.levels.clone();
        let mut cx = around.of_filter(Passage::of_route(&levels, at));
        let step = match passage.stream(at).map(|stream| stream.poll(request, &mut cx, waker)) {
            Some(Poll::Pending) => return Poll::Pending,
            Some(Poll::Ready(step)) => step,
            None => Step::Continue,
        };
        Poll::Ready(self.after(at, step, passage, (request, around)))
    }

    /// The body that a filter waited for is here.
    pub fn on_request_whole(
        &self,
        passage: &mut Passage,
        request: &mut RequestHead,
        around: &mut StreamContext<'_>,
        bytes: usize,
    ) -> Step {
        let Some((at, _)) = passage.held else { return Step::Continue };
        let levels = passage.levels.clone();
        let mut cx = around.of_filter(Passage::of_route(&levels, at));
        let step = passage
            .stream(at)
            .map_or(Step::Continue, |stream| stream.on_request_whole(request, &mut cx, bytes));
        self.after(at, step, passage, (request, around))
    }

    fn after(
        &self,
        at: usize,
        step: Step,
        passage: &mut Passage,
        (request, around): (&mut RequestHead, &mut StreamContext<'_>),
    ) -> Step {
        if Self::goes_on(at, &step, passage) {
            return self.go_on(at + 1, passage, request, around);
        }
        step
    }

    /// Shows a response to every filter, last one first.
    pub fn on_response(
        &self,
        passage: &Passage,
        (request, response): (&RequestHead, &mut ResponseHead),
        around: &mut StreamContext<'_>,
    ) {
        for (at, filter) in self.enabled(passage).rev() {
            let mut cx = around.of_filter(Passage::of_route(&passage.levels, at));
            filter.on_response(request, response, &mut cx);
        }
    }

    /// Shows the trailers of a request to every filter.
    pub fn on_request_trailers(
        &self,
        passage: &Passage,
        (request, trailers): (&RequestHead, &mut Headers),
        around: &mut StreamContext<'_>,
    ) {
        for (at, filter) in self.enabled(passage) {
            let mut cx = around.of_filter(Passage::of_route(&passage.levels, at));
            filter.on_request_trailers(request, trailers, &mut cx);
        }
    }

    /// Shows the trailers of a response to every filter, last one first.
    pub fn on_response_trailers(
        &self,
        passage: &Passage,
        (request, response): (&RequestHead, &ResponseHead),
        trailers: &mut Headers,
        around: &mut StreamContext<'_>,
    ) {
        for (at, filter) in self.enabled(passage).rev() {
            let mut cx = around.of_filter(Passage::of_route(&passage.levels, at));
            filter.on_response_trailers(request, response, trailers, &mut cx);
        }
    }

    fn enabled<'s>(
        &'s self,
        passage: &'s Passage,
    ) -> impl DoubleEndedIterator<Item = (usize, &'s dyn HttpFilter)> {
        let entries = self.entries.iter().enumerate();
        entries
            .filter(|(at, entry)| !passage.is_disabled(*at, entry.disabled))
            .map(|(at, entry)| (at, &*entry.filter))
    }
}

#[cfg(test)]
mod tests;
