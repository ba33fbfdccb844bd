//! What a thread does with a connection of another generation: finds out where it belongs in this
//! configuration, and which configuration governs what is in progress on it.
//!
//! ```text
//! idle                              → this configuration
//! in progress, same configuration   → its place in it
//! in progress, another one          → a filter made from that one, then this configuration
//! in progress, its listener is gone → a filter made from that one, to the end (`--on-removed keep`)
//! ```

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use baton_contract::{
    message::OnRemoved,
    peer::Stay,
    record::{Reader, RecordError},
};

use super::{
    active_listener::{ActiveListener, keys},
    crew::{Import, Landing},
    import::PinnedConfig,
    service::ThreadService,
};
use crate::{
    clock,
    config::listener::Listener,
    filter::{
        chain::Chain,
        network::{Arrived, Successor, hcm},
    },
    migrate::{Common, kind},
    stats::ConnectionKind,
    thread::Thread,
};

/// Filters of an older configuration are kept this long after they were needed last.
const KEEP: Duration = Duration::from_secs(30);

/// The filters of older configurations that govern what is in progress.
#[derive(Default)]
pub(super) struct Worlds(RefCell<HashMap<u128, World>>);

/// One older configuration on this thread.
struct World {
    thread: Rc<Thread>,
    listeners: HashMap<usize, Rc<ActiveListener>>,
    needed_at: Instant,
}

impl Worlds {
    /// Forgets what was not needed for a while. Connections keep the filter they have.
    pub(super) fn sweep(&self) {
        let now = clock::now();
        self.0.borrow_mut().retain(|_, world| now.duration_since(world.needed_at) < KEEP);
    }
}

/// Where a connection belongs in the newest configuration.
struct Home {
    index: usize,
    listener: Rc<ActiveListener>,
    /// Position of its filter chain.
    chain: usize,
}

impl ThreadService {
    /// Prepares to take over what another generation offers.
    pub(super) fn adopt(&self, import: Import) -> Result<Landing, Stay> {
        let Import { record, fds, pinned, on_removed } = import;
        let mut reader = Reader::new(&record).map_err(malformed)?;
        if reader.kind == kind::POOLED {
            return self.adopt_pooled(reader, fds);
        }
        let common = Common::read(&mut reader, clock::now()).map_err(malformed)?;
        let home = self.home(&common);
        let governed = match (&pinned, common.bound) {
            (_, false) => None,
            (None, true) => Some(self.at_home(&common)?),
            (Some(_), true) if home.is_none() && on_removed != OnRemoved::Keep => {
                return Err(Stay::NoListener);
            }
            (Some(pinned), true) => match self.under(pinned, &common) {
                // It came from a file, of which the supervisor does not know.
                Err(Stay::NoListener) if home.is_some() => None,
                found => Some(found?),
            },
        };
        let (listener, chain) = match (&governed, &home) {
            (Some(listener), _) => (listener, common.chain),
            (None, Some(home)) => (&home.listener, home.chain),
            (None, None) => return Err(Stay::NoListener),
        };
        let (_, filters) = listener.chains.get(chain).ok_or(Stay::Malformed)?;
        let kind = match reader.kind {
            kind::TCP => ConnectionKind::Tcp,
            _ => ConnectionKind::Http1,
        };
        let at_home = pinned.is_none() || !common.bound;
        let successor = home.as_ref().filter(|_| !at_home && kind == ConnectionKind::Http1);
        let arrived = Arrived {
            record: reader,
            fds: VecDeque::from(fds),
            listener: Arc::clone(&listener.name),
            filter_chain: Arc::clone(&filters.name),
            buffer_limit_bytes: listener.config.buffer_limit_bytes,
            origin: listener.origin(chain),
            successor: successor.and_then(Home::successor).map(Box::new),
            at_home,
            common: common.clone(),
        };
        let serving = Rc::clone(filters.terminal()).import(arrived)?;
        // The books are kept by the newest configuration where it has a place for the connection.
        let (index, keeper, chain) = match home {
            Some(home) => (Some(home.index), home.listener, home.chain),
            None => (None, Rc::clone(listener), chain),
        };
        let chain = keeper.chains.get(chain).map(|(_, chain)| Arc::clone(&chain.name));
        let chain = chain.unwrap_or_else(|| "".into());
        let start = move |permit| keeper.serve_arrived(kind, permit, &common, &chain, serving);
        Ok(Landing { listener: index, start: Box::new(start) })
    }

    /// Where a connection belongs here: the listener of the same name, or with one of its addresses.
    fn home(&self, common: &Common) -> Option<Home> {
        let index = self.places.borrow().find(&common.name, &common.keys)?;
        let listener = self.active(index)?;
        let chain = listener.chain_for(common.local, common.peer)?;
        Some(Home { index, listener, chain })
    }

    /// The listener of a connection that is governed by this configuration.
    fn at_home(&self, common: &Common) -> Result<Rc<ActiveListener>, Stay> {
        let index = self.places.borrow().find(&common.name, &common.keys);
        self.active(index.ok_or(Stay::NoListener)?).ok_or(Stay::Malformed)
    }

    /// A listener of an older configuration on this thread.
    fn under(
        &self,
        pinned: &Arc<PinnedConfig>,
        common: &Common,
    ) -> Result<Rc<ActiveListener>, Stay> {
        let listeners = &pinned.bootstrap.listeners;
        let index = listeners.iter().position(|listener| listener.name == common.name);
        let index = index.ok_or(Stay::NoListener)?;
        let mut worlds = self.worlds.0.borrow_mut();
        let world = worlds.entry(pinned.source.hash).or_insert_with(|| World {
            thread: self.thread.under(&pinned.source, &pinned.bootstrap, &pinned.clusters),
            listeners: HashMap::new(),
            needed_at: clock::now(),
        });
        world.needed_at = clock::now();
        if let Some(listener) = world.listeners.get(&index) {
            return Ok(Rc::clone(listener));
        }
        let config = pinned.bootstrap.listeners.get(index).ok_or(Stay::Malformed)?;
        let listener =
            ActiveListener::new(&world.thread, (index, config), &self.cut).map_err(|error| {
                tracing::warn!(%error, "a configuration of another generation cannot be used");
                Stay::Config
            })?;
        let listener = Rc::new(listener);
        world.listeners.insert(index, Rc::clone(&listener));
        Ok(listener)
    }

    /// An idle connection to an endpoint goes into this thread's pool.
    fn adopt_pooled(&self, reader: Reader<'_>, fds: Vec<OwnedFd>) -> Result<Landing, Stay> {
        let pooled = hcm::pooled::read(reader, fds, &self.thread)?;
        let thread = Rc::clone(&self.thread);
        let start = move |permit| {
            // It is no downstream connection.
            drop(permit);
            pooled.keep(&thread);
        };
        Ok(Landing { listener: None, start: Box::new(start) })
    }
}

impl Home {
    fn successor(&self) -> Option<Successor> {
        let (_, chain): &(_, Chain) = self.listener.chains.get(self.chain)?;
        Rc::clone(chain.terminal()).as_hcm()?;
        Some(Successor {
            filter: Rc::clone(chain.terminal()),
            listener: Arc::clone(&self.listener.name),
            filter_chain: Arc::clone(&chain.name),
            buffer_limit_bytes: self.listener.config.buffer_limit_bytes,
            origin: self.listener.origin(self.chain),
        })
    }
}

/// Listeners of this configuration by name and by address.
#[derive(Debug, Default)]
pub(super) struct Places {
    names: HashMap<String, usize>,
    keys: HashMap<String, usize>,
}

impl Places {
    pub(super) fn new<'l>(listeners: impl Iterator<Item = (usize, &'l Arc<Listener>)>) -> Self {
        let mut places = Self::default();
        for (index, listener) in listeners {
            places.names.entry(listener.name.clone()).or_insert(index);
            for key in keys(listener) {
                places.keys.entry(key).or_insert(index);
            }
        }
        places
    }

    fn find(&self, name: &str, keys: &[String]) -> Option<usize> {
        let by_key = || keys.iter().find_map(|key| self.keys.get(key));
        self.names.get(name).or_else(by_key).copied()
    }
}

fn malformed(error: RecordError) -> Stay {
    tracing::warn!(%error, "an offer of another generation cannot be read");
    Stay::Malformed
}
