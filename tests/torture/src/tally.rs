//! What the clients saw, by workload and class.

use baton_load::latency::Histogram;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// The kinds of client, in the order of the report.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Workload {
    /// W1: one request per connection.
    Connect,
    /// W2: keep-alive with 0 to 10 ms between two requests.
    KeepAlive,
    /// W3: keep-alive connections that stay idle for seconds.
    Idle,
    /// W4: eight requests at a time.
    Pipeline,
    /// W5: upload with a content length.
    UploadLength,
    /// W5: chunked upload.
    UploadChunked,
    /// W6: long download.
    Download,
    /// W7: WebSocket echo with sequence numbers.
    WebSocket,
    /// W8: TCP tunnel both ways.
    Tunnel,
    /// W13: the client has closed its side and still receives.
    HalfClosed,
    /// W16: a request head that comes byte by byte.
    SlowHead,
    /// W17: clients that reset in the middle of a request.
    Reset,
    /// W18: an upload of ten bytes a second.
    Trickle,
    /// W19: uploads that are refused before their body has come.
    Refused,
    /// W20: responses that end early; what came of them is received.
    Short,
    /// W21: clients behind two proxies, each of which wrote a line of `x-forwarded-for`.
    Forwarded,
}

impl Workload {
    /// What people do.
    pub const ALL: [Self; 12] = [
        Self::Connect,
        Self::KeepAlive,
        Self::Idle,
        Self::Pipeline,
        Self::UploadLength,
        Self::UploadChunked,
        Self::Download,
        Self::WebSocket,
        Self::Tunnel,
        Self::HalfClosed,
        Self::SlowHead,
        Self::Reset,
    ];

    /// What people seldom do.
    pub const EDGES: [Self; 4] = [Self::Trickle, Self::Refused, Self::Short, Self::Forwarded];

    /// All of both.
    pub fn every() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().chain(Self::EDGES)
    }

    /// Name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect per request",
            Self::KeepAlive => "keep-alive, 0-10 ms apart",
            Self::Idle => "keep-alive, idle",
            Self::Pipeline => "pipelined, 8 at a time",
            Self::UploadLength => "slow upload, length",
            Self::UploadChunked => "slow upload, chunked",
            Self::Download => "long download",
            Self::WebSocket => "WebSocket echo",
            Self::Tunnel => "TCP tunnel, both ways",
            Self::HalfClosed => "TCP tunnel, half-closed",
            Self::SlowHead => "slow request head",
            Self::Reset => "client resets",
            Self::Trickle => "upload, 10 B/s",
            Self::Refused => "upload refused early",
            Self::Short => "response ends early",
            Self::Forwarded => "behind two proxies",
        }
    }
}

/// What happened to one exchange or one connection.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// The exchange was complete and every byte right.
    Ok,
    /// No answer, or an error answer, to the first request of a connection.
    LostOnFresh,
    /// No answer, or an error answer, to a later request of a connection.
    LostOnReused,
    /// The connection was refused, reset or not established in time.
    ConnectFail,
    /// The proxy closed the connection after it had said so in a response.
    AnnouncedClose,
    /// The proxy closed an idle connection without a word. No request was lost.
    SilentIdleClose,
    /// The exchange was ended in the middle.
    Cut,
    /// A byte was wrong, missing or out of order.
    WrongBytes,
}

impl Class {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::LostOnFresh,
        Self::LostOnReused,
        Self::ConnectFail,
        Self::AnnouncedClose,
        Self::SilentIdleClose,
        Self::Cut,
        Self::WrongBytes,
    ];

    /// Heading in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::LostOnFresh => "lost on fresh",
            Self::LostOnReused => "lost on reused",
            Self::ConnectFail => "connect failed",
            Self::AnnouncedClose => "announced close",
            Self::SilentIdleClose => "silent idle close",
            Self::Cut => "cut",
            Self::WrongBytes => "wrong bytes",
        }
    }

    /// Whether a client lost something.
    pub fn is_loss(self) -> bool {
        match self {
            Self::Ok | Self::AnnouncedClose | Self::SilentIdleClose => false,
            Self::LostOnFresh
            | Self::LostOnReused
            | Self::ConnectFail
            | Self::Cut
            | Self::WrongBytes => true,
        }
    }
}

/// When a request was made.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Phase {
    /// While nothing happened to the proxy.
    Calm,
    /// While it was reloaded, or soon after.
    Reload,
}

/// The counts of one run. All clients run on one thread and share it.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: RefCell<BTreeMap<(Workload, Class), u64>>,
    connections: RefCell<u64>,
    failures: RefCell<Vec<String>>,
    calm: RefCell<Histogram>,
    in_reloads: RefCell<Histogram>,
    verbose: bool,
}

impl Tally {
    /// Counts nothing yet.
    pub(crate) fn new(verbose: bool) -> Rc<Self> {
        Rc::new(Self { verbose, ..Self::default() })
    }

    /// One more of this kind.
    pub(crate) fn add(&self, workload: Workload, class: Class) {
        *self.counts.borrow_mut().entry((workload, class)).or_insert(0) += 1;
    }

    /// One more failure, with what the client saw.
    pub(crate) fn fail(&self, workload: Workload, class: Class, seen: &str) {
        self.add(workload, class);
        let line = format!("{}: {}: {seen}", workload.name(), class.name());
        if self.verbose {
            eprintln!("{line}");
        }
        self.failures.borrow_mut().push(line);
    }

    /// One more short request and its response.
    pub(crate) fn took(&self, time: Duration, phase: Phase) {
        let times = match phase {
            Phase::Calm => &self.calm,
            Phase::Reload => &self.in_reloads,
        };
        times.borrow_mut().record(time);
    }

    /// Times of short requests: those that overlapped a reload, and the others.
    pub(crate) fn times(&self) -> (Histogram, Histogram) {
        (self.in_reloads.borrow().clone(), self.calm.borrow().clone())
    }

    /// Times of all short requests since the last call.
    pub(crate) fn take_times(&self) -> Histogram {
        let mut times = self.calm.take();
        times.add(&self.in_reloads.take());
        times
    }

    /// One more connection that was established.
    pub(crate) fn connected(&self) {
        *self.connections.borrow_mut() += 1;
    }

    /// Connections established so far.
    pub(crate) fn connections(&self) -> u64 {
        *self.connections.borrow()
    }

    /// How many there are of this kind.
    pub(crate) fn count(&self, workload: Workload, class: Class) -> u64 {
        self.counts.borrow().get(&(workload, class)).copied().unwrap_or(0)
    }

    /// How many there are of this class over all workloads.
    pub(crate) fn total(&self, class: Class) -> u64 {
        Workload::every().map(|workload| self.count(workload, class)).sum()
    }

    /// Everything a client lost.
    pub(crate) fn lost(&self) -> u64 {
        Class::ALL.iter().filter(|class| class.is_loss()).map(|class| self.total(*class)).sum()
    }

    /// The failures in the order they were seen.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.borrow().clone()
    }
}
