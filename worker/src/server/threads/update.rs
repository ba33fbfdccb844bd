//! How a new edition of the configuration reaches the threads.

use std::{future::Future, sync::Arc, time::Duration};

use super::{Command, Local, ThreadError, Threads};
use crate::{
    config::{hcm::HttpConnectionManager, listener::Listener, route::RouteConfiguration},
    listener::{
        acceptor::Rules,
        limit::{Door, Gate},
    },
    migrate::ConfigSource,
};

/// What the shards of one listener need.
#[derive(Clone, Debug)]
pub(in super::super) struct OwnGate {
    pub gate: Arc<Gate>,
    pub rules: Rules,
}

impl OwnGate {
    /// That of a listener of the configuration.
    pub(in super::super) fn of(listener: &Listener) -> Self {
        let socket = &listener.socket;
        Self {
            gate: Gate::listener(&listener.name, socket.max_connections),
            rules: Rules {
                ignores_global: socket.ignores_global_limit,
                keepalive: socket.keepalive,
            },
        }
    }
}

/// A listener that is new or changed.
#[derive(Debug)]
pub(in super::super) struct Changed {
    pub config: Arc<Listener>,
    pub own: OwnGate,
}

/// A new edition of the configuration: what differs from the one before. Clusters are taken up from their
/// table.
#[derive(Debug)]
pub(in super::super) struct Update {
    pub source: Arc<ConfigSource>,
    /// Listeners that are new or changed, by position; `None` = gone.
    pub listeners: Vec<(usize, Option<Changed>)>,
    /// How long connections of listeners that are gone may go on.
    pub farewell: Duration,
    /// Tables of routes, with the connection manager they are for.
    pub routes: Vec<(Arc<HttpConnectionManager>, Arc<RouteConfiguration>)>,
    /// A log or a header of it shows our own address towards endpoints.
    pub shows_upstream_local: bool,
}

impl Threads {
    /// Tells each thread of a new edition of the configuration; returns when all work with it.
    pub(in super::super) fn update(
        &self,
        update: &Arc<Update>,
    ) -> impl Future<Output = Result<(), ThreadError>> + use<> {
        let answers = self.send(|done| Command::Update { update: Arc::clone(update), done });
        async move {
            for answer in answers {
                answer.wait().await?;
            }
            Ok(())
        }
    }
}

impl Local {
    /// Connections that are accepted from now on are served as this edition of the configuration says.
    pub(super) fn update(&mut self, update: &Update) {
        self.service.update(update);
        for (at, listener) in &update.listeners {
            // What the acceptors of one that is gone have stays: it may come back before they go.
            let Some(Changed { own, .. }) = listener else { continue };
            self.doors.entry(*at).or_insert_with(|| Door::new(&own.gate, &self.sums));
            self.gates.listeners.insert(*at, own.clone());
            let (Some(shared), Some(serve)) = (self.listeners.get(at), self.service.listener(*at))
            else {
                continue;
            };
            shared.serve.replace(serve);
            if shared.rules.replace(own.rules) != own.rules {
                let theirs = self.acceptors.iter().filter(|(_, it)| it.is_of(shared));
                theirs.for_each(|(_, acceptor)| acceptor.set_options());
            }
        }
    }
}
