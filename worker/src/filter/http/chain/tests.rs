//! Who is asked, in which order, and who is not.

use std::{
    cell::RefCell,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use super::*;
use crate::{
    config::{model::Node, route::FilterLevel},
    http::{
        local_reply::LocalReply,
        stream_info::{ConnectionInfo, StreamInfo},
    },
};

type Calls = Rc<RefCell<Vec<String>>>;
/// Name, interest, and what it does.
type Told = (&'static str, Interest, fn() -> Step);

/// Notes its calls, and does what it was told.
#[derive(Debug)]
struct Noting {
    name: &'static str,
    calls: Calls,
    step: fn() -> Step,
    interest: Interest,
}

impl Noting {
    fn note(&self, what: &str) {
        self.calls.borrow_mut().push(format!("{} {what}", self.name));
    }
}

impl HttpFilter for Noting {
    fn interest(&self) -> Interest {
        self.interest
    }

    fn on_request(&self, _: &mut RequestHead, cx: &mut StreamContext<'_>) -> Step {
        self.note(&format!("request {}", cx.settings::<u32>().count()));
        (self.step)()
    }

    fn begin(
        &self,
        request: &RequestHead,
        _: &mut StreamContext<'_>,
    ) -> Option<Box<dyn StreamFilter>> {
        self.note("begin");
        let step = self.step;
        let note = (self.name, Rc::clone(&self.calls));
        request.headers.contains(b"x-mine").then(|| Box::new(Stream { note, step }) as _)
    }

    fn on_response(&self, _: &RequestHead, _: &mut ResponseHead, _: &mut StreamContext<'_>) {
        self.note("response");
    }
}

#[derive(Debug)]
struct Stream {
    note: (&'static str, Calls),
    step: fn() -> Step,
}

impl StreamFilter for Stream {
    fn on_request(&mut self, _: &mut RequestHead, _: &mut StreamContext<'_>) -> Step {
        (self.step)()
    }

    fn poll(
        &mut self,
        request: &mut RequestHead,
        _: &mut StreamContext<'_>,
        _: &mut Context<'_>,
    ) -> Poll<Step> {
        if !request.headers.contains(b"x-over") {
            return Poll::Pending;
        }
        self.note.1.borrow_mut().push(format!("{} over", self.note.0));
        Poll::Ready(Step::Continue)
    }
}

/// A chain of these filters and what they noted.
struct Bench {
    chain: HttpChain,
    calls: Calls,
    request: RequestHead,
    info: StreamInfo,
    random: RefCell<fastrand::Rng>,
    node: Node,
}

impl Bench {
    fn new(filters: &[Told]) -> Self {
        let calls = Calls::default();
        let entry = |&(name, interest, step): &Told| {
            let filter = Noting { name, calls: Rc::clone(&calls), step, interest };
            Entry { filter: Box::new(filter), disabled: name == "off" }
        };
        let connection = ConnectionInfo {
            id: 1,
            peer: None,
            path: None,
            local: None,
            listener: "l".into(),
            filter_chain: "".into(),
        };
        let begin = (crate::clock::wall(), crate::clock::now());
        let mut request = RequestHead::default();
        request.headers.append(b"x-mine", b"1");
        Self {
            chain: HttpChain::new(filters.iter().map(entry).collect()),
            calls,
            request,
            info: StreamInfo::new(Rc::new(connection), begin, &"".into()),
            random: RefCell::new(fastrand::Rng::with_seed(1)),
            node: Node::default(),
        }
    }

    /// Calls the chain with what it needs.
    fn call<T>(
        &mut self,
        call: impl FnOnce(&HttpChain, &mut RequestHead, &mut StreamContext<'_>) -> T,
    ) -> T {
        let mut around = StreamContext {
            info: &mut self.info,
            of_route: &[],
            is_whole: false,
            cluster: None,
            now: crate::clock::now(),
            random: &self.random,
            node: &self.node,
        };
        call(&self.chain, &mut self.request, &mut around)
    }

    fn noted(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.borrow_mut())
    }
}

fn go() -> Step {
    Step::Continue
}

fn wait() -> Step {
    Step::Wait
}

fn buffer() -> Step {
    Step::Buffer(10)
}

fn reply() -> Step {
    Step::Reply(LocalReply::new(403, "", "refused"))
}

const PLAIN: Interest = Interest::HEADS;

#[test]
fn who_is_switched_off_sees_nothing_and_an_answer_passes_all_others_in_reverse() {
    let mut bench = Bench::new(&[
        ("first", PLAIN, go),
        ("off", PLAIN, go),
        ("second", PLAIN, reply),
        ("third", PLAIN, go),
    ]);
    let mut passage = Passage::default();
    let step = bench.call(|chain, request, around| chain.on_request(&mut passage, request, around));
    assert!(matches!(step, Step::Reply(_)) && passage.held().is_none());
    assert_eq!(bench.noted(), ["first request 0", "second request 0"]);
    bench.call(|chain, request, around| {
        chain.on_response(&passage, (request, &mut ResponseHead::default()), around);
    });
    assert_eq!(bench.noted(), ["third response", "second response", "first response"]);
}

#[test]
fn a_route_switches_filters_off_and_on_and_configures_them() {
    let mut bench = Bench::new(&[("first", PLAIN, go), ("off", PLAIN, go)]);
    let settings: [SharedSettings; 2] = [Arc::new(1_u32), Arc::new(2_u32)];
    let levels = [
        FilterLevel { disabled: Some(true), settings: Vec::new() },
        FilterLevel { disabled: Some(false), settings: settings.to_vec() },
    ];
    let mut passage = Passage::new(Some(levels.into()));
    let step = bench.call(|chain, request, around| chain.on_request(&mut passage, request, around));
    assert!(matches!(step, Step::Continue));
    assert_eq!(bench.noted(), ["off request 2"]);
}

#[test]
fn a_stream_waits_at_one_filter_after_the_other_and_is_not_moved_meanwhile() {
    let mut bench = Bench::new(&[
        ("first", Interest::STREAMS, wait),
        ("second", PLAIN, buffer),
        ("third", PLAIN, go),
    ]);
    let mut passage = Passage::default();
    let mut waker = Context::from_waker(Waker::noop());
    let step = bench.call(|chain, request, around| chain.on_request(&mut passage, request, around));
    assert!(matches!(step, Step::Wait) && passage.held() == Some(Hold::Filter));
    assert!(!passage.may_move());
    let polled =
        bench.call(|chain, request, around| chain.poll(&mut passage, request, around, &mut waker));
    assert!(polled.is_pending() && passage.held() == Some(Hold::Filter));

    bench.request.headers.append(b"x-over", b"1");
    let polled =
        bench.call(|chain, request, around| chain.poll(&mut passage, request, around, &mut waker));
    assert!(matches!(polled, Poll::Ready(Step::Buffer(10))));
    assert_eq!(passage.held(), Some(Hold::Body(10)));
    assert_eq!(bench.noted(), ["first begin", "first over", "second request 0"]);

    let step = bench
        .call(|chain, request, around| chain.on_request_whole(&mut passage, request, around, 5));
    assert!(matches!(step, Step::Continue) && passage.held().is_none() && passage.may_move());
    assert_eq!(bench.noted(), ["third request 0"]);
}

#[test]
fn a_filter_without_an_object_for_a_stream_is_passed_by() {
    let mut bench = Bench::new(&[("first", Interest::STREAMS, wait), ("second", PLAIN, go)]);
    bench.request.headers.clear();
    let mut passage = Passage::default();
    let step = bench.call(|chain, request, around| chain.on_request(&mut passage, request, around));
    assert!(matches!(step, Step::Continue) && passage.streams.capacity() == 0);
    assert_eq!(bench.noted(), ["first begin", "second request 0"]);
}
