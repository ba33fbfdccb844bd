//! Live connections on their way to another generation: the thread's side.
//!
//! While a generation gives its connections away, each of them looks at its thread's [`Mover`] when
//! there is nothing else to do. If there is room it takes itself apart into a record and copies of
//! its descriptors, and waits for the answer without touching its sockets: it is frozen. The answer
//! says that it lives on elsewhere, or it goes on here as if nothing had been.
//!
//! ```text
//! serving ── room? ──→ frozen ── Moved ──→ gone, without a `shutdown`
//!    ↑                    │
//!    └──── Stays(why) ────┘    again later, unless the reason is a lasting one
//! ```
//! The messages to the other generation are the business of `server::export`; what a record of a
//! connection has in it that of its filter.

use std::{
    cell::{Cell, RefCell},
    ffi::OsStr,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use baton_contract::{
    peer::Stay,
    record::{Reader, RecordError, Writer},
    shm::{Counts, SegmentWorker, Ticket, mono_ms},
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    clock,
    escrow::Owner,
    stats::{ConnectionKind, Counter, EndReason, Histogram, MigrationStats, ThreadStats},
};

mod term;
pub mod tunnel;

pub use term::{Edition, Farewell, Term};

/// Kinds of records.
pub mod kind {
    /// A downstream HTTP/1 connection, with the exchange in progress if there is one.
    pub const HTTP1: u16 = 1;
    /// A connection of `tcp_proxy`, with its upstream connection.
    pub const TCP: u16 = 2;
    /// An idle connection to an endpoint.
    pub const POOLED: u16 = 3;
}

/// The version of records this program writes, and the newest it reads.
pub const VERSION: u16 = 1;

/// Connections of one thread that may be frozen at once.
pub const WINDOW: usize = 64;

/// Failed tries after which a connection is left to the ordinary drain.
const TRIES: u8 = 5;
/// Wait after the first failed try; it doubles.
const BACKOFF: Duration = Duration::from_millis(50);

/// The configuration a connection runs on, as bytes that another process can read: one edition of it,
/// with the resources that were accepted then.
#[derive(Debug)]
pub struct ConfigSource {
    /// Hash of the bytes, which is its name.
    pub hash: u128,
    /// Hash of the configuration file alone, which is what the supervisor knows.
    pub file_hash: u128,
    /// Editions of this process that came before.
    pub edition: u64,
    /// Its path, for messages.
    pub path: String,
    /// The bytes, sealed.
    pub file: OwnedFd,
}

/// Where a connection belongs in its configuration.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The editions of the configuration that have its listener as it is.
    pub term: Rc<Term>,
    /// Position of the listener in them.
    pub listener: usize,
    /// Position of the filter chain in the listener, the default one last.
    pub chain: usize,
    /// Name of the listener.
    pub name: Arc<str>,
    /// Addresses of the listener.
    pub keys: Vec<String>,
    /// The Unix socket among them, if there is one.
    pub path: Option<Arc<Path>>,
}

impl Origin {
    /// A place in no configuration, for tests.
    pub fn nowhere() -> Rc<Self> {
        let name = "".into();
        let term = Term::begin(&Edition::default());
        Rc::new(Self { term, listener: 0, chain: 0, name, keys: Vec::new(), path: None })
    }

    /// The configuration; `None` when it cannot be handed on, as in tests.
    pub fn source(&self) -> Option<Arc<ConfigSource>> {
        self.term.source()
    }

    /// The name by which the supervisor knows it.
    pub fn file_hash(&self) -> Option<u128> {
        self.source().map(|source| source.file_hash)
    }
}

/// A connection that is offered to another generation.
#[derive(Debug)]
pub struct Export {
    /// Its state.
    pub record: Vec<u8>,
    /// Copies of its descriptors, in the order the record needs.
    pub fds: Vec<OwnedFd>,
    /// The configuration that governs it; `None` = any.
    pub source: Option<Arc<ConfigSource>>,
    /// Whether it is in the ledger.
    pub counts: Counts,
    /// Since when it is frozen.
    pub frozen_at: Instant,
    /// What becomes of it.
    pub answer: oneshot::Sender<Answer>,
}

/// What became of an offer.
#[derive(Debug)]
pub enum Answer {
    /// The other generation owns it.
    Moved(Moved),
    /// It stays.
    Stays(Stay),
}

/// A connection was given away. Dropped once its end is in the books of this generation, which it
/// then says in shared memory.
#[derive(Debug)]
pub struct Moved {
    /// The segment and the connection's word in it.
    pub ticket: Option<(Arc<SegmentWorker>, Ticket)>,
}

impl Moved {
    /// The row of the new owner.
    pub fn owner(&self) -> Option<Owner> {
        self.ticket.as_ref().and_then(|(segment, ticket)| segment.offered_to(*ticket))
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        if let Some((segment, ticket)) = self.ticket.take() {
            segment.old_booked(ticket);
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub struct Ended {
    /// For the ledger.
    pub reason: EndReason,
    /// Present when it lives on elsewhere; to be dropped after the ledger was written.
    pub moved: Option<Moved>,
}

impl From<EndReason> for Ended {
    fn from(reason: EndReason) -> Self {
        Self { reason, moved: None }
    }
}

impl From<Moved> for Ended {
    fn from(moved: Moved) -> Self {
        Self { reason: EndReason::Migrated, moved: Some(moved) }
    }
}

/// What connections of one thread ask before they move.
#[derive(Clone, Debug)]
pub struct Mover(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    active: Cell<bool>,
    /// Counts how often moving began: each time another generation may take what one before did not.
    round: Cell<u32>,
    in_flight: Cell<usize>,
    exports: RefCell<Option<mpsc::UnboundedSender<Export>>>,
    closes_removed: Cell<bool>,
    stats: MigrationStats,
}

impl Mover {
    /// A mover that moves nothing until it is told to.
    pub fn new(stats: &ThreadStats) -> Self {
        Self(Rc::new(Inner {
            active: Cell::new(false),
            round: Cell::new(0),
            in_flight: Cell::new(0),
            exports: RefCell::new(None),
            closes_removed: Cell::new(false),
            stats: MigrationStats::new(stats),
        }))
    }

    /// Begins to move connections: offers go to `exports`. `closes_removed` says that connections
    /// whose listener is gone are closed (`--on-removed close`).
    pub fn start(&self, exports: mpsc::UnboundedSender<Export>, closes_removed: bool) {
        self.0.exports.replace(Some(exports));
        self.0.closes_removed.set(closes_removed);
        self.0.round.set(self.0.round.get().wrapping_add(1));
        self.0.active.set(true);
    }

    /// Whether a connection whose listener is gone is closed once it can be.
    pub fn closes_removed(&self) -> bool {
        self.0.closes_removed.get()
    }

    /// Moves nothing any more.
    pub fn stop(&self) {
        self.0.active.set(false);
    }

    /// Connections are being moved.
    pub fn is_active(&self) -> bool {
        self.0.active.get()
    }

    /// How many more connections may be frozen now.
    pub fn room(&self) -> usize {
        if self.0.active.get() { WINDOW.saturating_sub(self.0.in_flight.get()) } else { 0 }
    }

    /// Offers something and waits for what becomes of it. `kind` is what it counts as when it
    /// moves; `None` for an idle upstream connection.
    ///
    /// # Cancel safety
    /// Not cancel safe: whoever gives up does not learn who owns the connection.
    pub async fn offer(
        &self,
        kind: Option<ConnectionKind>,
        source: Option<Arc<ConfigSource>>,
        record: Vec<u8>,
        fds: Vec<OwnedFd>,
    ) -> Answer {
        let frozen_at = clock::now();
        let (answer, answered) = oneshot::channel();
        let counts = if kind.is_some() { Counts::InLedger } else { Counts::Nowhere };
        let export = Export { record, fds, source, counts, frozen_at, answer };
        let sent = self.0.exports.borrow().as_ref().is_some_and(|to| to.send(export).is_ok());
        if !sent {
            return Answer::Stays(Stay::NoPeer);
        }
        self.0.in_flight.set(self.0.in_flight.get() + 1);
        let answer = answered.await.unwrap_or(Answer::Stays(Stay::NoPeer));
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        let stats = &self.0.stats;
        let frozen = clock::now().saturating_duration_since(frozen_at).as_micros();
        stats.freeze_us.record(u64::try_from(frozen).unwrap_or(u64::MAX));
        match &answer {
            Answer::Moved(_) => stats.moved(kind).inc(),
            Answer::Stays(_) => stats.thawed.inc(),
        }
        answer
    }

    /// What moved by kind, idle upstream connections last, and what stayed by reason.
    pub fn totals(&self) -> ([u64; 4], [u64; Stay::ALL.len()]) {
        self.0.stats.totals()
    }

    /// A connection was taken over from another generation.
    pub fn imported(&self) -> &Counter {
        &self.0.stats.imported
    }

    /// How long connections were frozen.
    pub fn freeze_us(&self) -> &Histogram {
        &self.0.stats.freeze_us
    }

    /// A connection ended here while others moved: counts why it had not moved.
    pub fn stayed(&self, wish: &Wish) {
        if self.is_active() {
            self.0.stats.stayed(wish.why.unwrap_or(Stay::Busy)).inc();
        }
    }
}

/// A connection's own view of its move: whether it may be tried, and why it failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    tries: u8,
    not_before: Option<Instant>,
    /// The last reason it stayed.
    pub why: Option<Stay>,
    lasting: bool,
    /// Round of the mover it is about.
    round: u32,
}

impl Wish {
    /// Whether to try now. A further generation is asked anew.
    pub fn may_try(&mut self, mover: &Mover, now: Instant) -> bool {
        let round = mover.0.round.get();
        if self.round != round {
            *self = Self { round, ..Self::default() };
        }
        !self.lasting && mover.room() > 0 && self.not_before.is_none_or(|at| now >= at)
    }

    /// It cannot move and will not be tried again; it is told to close instead.
    pub const fn is_left_behind(&self) -> bool {
        self.lasting
    }

    /// An offer had this answer.
    pub fn stays(&mut self, why: Stay, now: Instant) {
        self.why = Some(why);
        self.tries = self.tries.saturating_add(1);
        self.lasting = why.is_lasting() || (why != Stay::NoPeer && self.tries >= TRIES);
        self.not_before = Some(now + BACKOFF * 2_u32.saturating_pow(u32::from(self.tries)));
    }

    /// It cannot be moved at this moment of its life.
    pub fn busy(&mut self) {
        self.why.get_or_insert(Stay::Busy);
    }
}

/// Tags of the fields every record of a downstream connection has.
mod tag {
    pub(super) const CONFIG: u16 = 1;
    pub(super) const LISTENER: u16 = 2;
    pub(super) const CHAIN: u16 = 3;
    pub(super) const NAME: u16 = 4;
    pub(super) const KEYS: u16 = 5;
    pub(super) const AGE: u16 = 6;
    pub(super) const OPENED: u16 = 7;
    pub(super) const PEER: u16 = 8;
    pub(super) const LOCAL: u16 = 9;
    pub(super) const BOUND: u16 = 10;
    pub(super) const WRITTEN: u16 = 11;
}

/// First tag for what a kind of connection has of its own.
pub const FIRST_OWN_TAG: u16 = 32;

/// When a connection was opened.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    /// On the monotonic clock.
    pub at: Instant,
    /// On the wall clock, for logs.
    pub wall: SystemTime,
}

impl Opened {
    /// Now.
    pub fn now() -> Self {
        Self { at: clock::now(), wall: clock::wall() }
    }
}

/// What is known of every downstream connection.
#[derive(Clone, Debug)]
pub struct Common {
    /// Hash of the configuration.
    pub config: u128,
    /// Position of the listener in it.
    pub listener: usize,
    /// Position of the filter chain in the listener.
    pub chain: usize,
    /// Name of the listener.
    pub name: String,
    /// Addresses of the listener.
    pub keys: Vec<String>,
    /// When it was opened.
    pub opened: Opened,
    /// The socket's peer.
    pub peer: Option<std::net::SocketAddr>,
    /// The socket's own address.
    pub local: Option<std::net::SocketAddr>,
    /// It is in the middle of something its own configuration governs to the end.
    pub bound: bool,
}

impl Common {
    /// Begins a record.
    pub fn write(&self, kind: u16, now: Instant) -> Writer {
        let mut writer = Writer::new(kind, VERSION);
        let wall = self.opened.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        writer
            .bytes(tag::CONFIG, &self.config.to_le_bytes())
            .number(tag::LISTENER, self.listener as u64)
            .number(tag::CHAIN, self.chain as u64)
            .text(tag::NAME, &self.name)
            .list(tag::KEYS, self.keys.iter().map(String::as_bytes))
            .number(tag::AGE, micros(now.saturating_duration_since(self.opened.at)))
            .number(tag::OPENED, micros(wall))
            .number(tag::BOUND, u64::from(self.bound))
            .number(tag::WRITTEN, mono_ms());
        if let Some(peer) = self.peer {
            writer.text(tag::PEER, &peer.to_string());
        }
        if let Some(local) = self.local {
            writer.text(tag::LOCAL, &local.to_string());
        }
        writer
    }

    /// Reads it back.
    ///
    /// # Errors
    /// When a field is missing or malformed.
    pub fn read(reader: &mut Reader<'_>, now: Instant) -> Result<Self, RecordError> {
        let config = reader.bytes(tag::CONFIG)?;
        let config = config.try_into().map_err(|_| RecordError::Malformed(tag::CONFIG))?;
        let keys = reader.list(tag::KEYS)?;
        let age = micros(on_the_way(reader)?).saturating_add(reader.number(tag::AGE)?);
        let at = earlier(now, age);
        let wall = Duration::from_micros(reader.number(tag::OPENED)?);
        Ok(Self {
            config: u128::from_le_bytes(config),
            listener: reader.narrow(tag::LISTENER)?,
            chain: reader.narrow(tag::CHAIN)?,
            name: reader.text(tag::NAME)?.to_owned(),
            keys: keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect(),
            opened: Opened {
                at,
                wall: SystemTime::UNIX_EPOCH.checked_add(wall).unwrap_or(SystemTime::UNIX_EPOCH),
            },
            peer: maybe_address(reader, tag::PEER)?,
            local: maybe_address(reader, tag::LOCAL)?,
            bound: reader.flag(tag::BOUND)?,
        })
    }
}

/// Time since a record was written. One in escrow may be old, and all ages in it are as of then.
///
/// # Errors
/// When the field is missing or malformed.
pub fn on_the_way(reader: &mut Reader<'_>) -> Result<Duration, RecordError> {
    let written = reader.number(tag::WRITTEN)?;
    Ok(Duration::from_millis(mono_ms().saturating_sub(written)))
}

/// A duration as records have it.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A time so many microseconds before `now`, as far back as the clock goes.
pub fn earlier(now: Instant, micros: u64) -> Instant {
    now.checked_sub(Duration::from_micros(micros)).unwrap_or(now)
}

/// An address as text that may be missing.
///
/// # Errors
/// When it is no address.
pub fn maybe_address(
    reader: &mut Reader<'_>,
    tag: u16,
) -> Result<Option<std::net::SocketAddr>, RecordError> {
    let Some(bytes) = reader.maybe_bytes(tag) else { return Ok(None) };
    let text = std::str::from_utf8(bytes).map_err(|_| RecordError::Malformed(tag))?;
    text.parse().map(Some).map_err(|_| RecordError::Malformed(tag))
}

/// Writes the path of a Unix socket, which older versions do not know.
pub fn write_path(writer: &mut Writer, tag: u16, path: Option<&Path>) {
    if let Some(path) = path {
        writer.optional().bytes(tag, path.as_os_str().as_bytes()).critical();
    }
}

/// Reads what [`write_path`] wrote.
pub fn maybe_path(reader: &mut Reader<'_>, tag: u16) -> Option<Arc<Path>> {
    reader.maybe_bytes(tag).map(|path| Path::new(OsStr::from_bytes(path)).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_stayed_waits_longer_each_time_and_is_left_behind_in_the_end() {
        let mover = Mover::new(&ThreadStats::detached());
        let (exports, _offers) = mpsc::unbounded_channel();
        let mut wish = Wish::default();
        let mut now = clock::now();
        assert!(!wish.may_try(&mover, now), "nobody asked");
        mover.start(exports.clone(), false);
        for _ in 0..TRIES {
            assert!(wish.may_try(&mover, now) && !wish.is_left_behind());
            wish.stays(Stay::Timeout, now);
            assert!(!wish.may_try(&mover, now), "not at once");
            now += BACKOFF * 64;
        }
        assert!(!wish.may_try(&mover, now) && wish.is_left_behind());
        // Another generation takes over: it is asked.
        mover.start(exports, false);
        assert!(wish.may_try(&mover, now) && !wish.is_left_behind());
        wish.stays(Stay::NoListener, now);
        assert!(wish.is_left_behind(), "asking again has the same answer");
    }

    #[test]
    fn the_common_fields_are_read_back() {
        let now = clock::now();
        let common = Common {
            config: u128::MAX / 7,
            listener: 3,
            chain: 1,
            name: "ingress".to_owned(),
            keys: vec!["tcp://0.0.0.0:80".to_owned()],
            opened: Opened { at: now, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(99) },
            peer: "127.0.0.1:4711".parse().ok(),
            local: "[::1]:80".parse().ok(),
            bound: true,
        };
        let later = now + Duration::from_millis(250);
        let record = common.write(kind::TCP, later).finish();
        let mut reader = Reader::new(&record).expect("a record");
        let read = Common::read(&mut reader, later).expect("all fields");
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!((read.config, read.listener, read.chain), (common.config, 3, 1));
        assert_eq!((read.name, read.keys), (common.name, common.keys));
        assert_eq!((read.peer, read.local, read.bound), (common.peer, common.local, true));
        assert_eq!(read.opened.wall, common.opened.wall);
        // The time on the way is added, which is the real one here.
        assert!(read.opened.at <= now && now - read.opened.at < Duration::from_secs(60));
    }
}
