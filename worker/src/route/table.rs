//! The routes of one listener, ready to be looked up.

use std::{cell::OnceCell, rc::Rc, sync::Arc};

use super::{headers::Levels, matcher};
use crate::{
    config::route::{RequireTls, Route, RouteConfiguration, VirtualHost},
    http::head::RequestHead,
    migrate::Term,
};

/// A route configuration on one thread. The configuration and its indexes are those of all threads;
/// the names are this one's, because requests share them and threads should not.
#[derive(Debug)]
pub struct RouteTable {
    configuration: Arc<RouteConfiguration>,
    /// One for each virtual host, in the same order; made when they are used first.
    names: Box<[OnceCell<Names>]>,
    /// The editions of the configuration that have it, when it is a resource of its own.
    term: Option<Rc<Term>>,
}

/// The names of a virtual host and its routes, to be shared by requests.
#[derive(Debug)]
struct Names {
    host: Arc<str>,
    /// In the order of the routes; made when they are used first.
    routes: Box<[OnceCell<Arc<str>>]>,
}

/// The position of a route in its table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RouteId {
    /// Position of the virtual host in the route configuration.
    pub virtual_host: usize,
    /// Position of the route in the virtual host.
    pub route: usize,
}

/// The answer of [`RouteTable::find`].
#[derive(Clone, Copy, Debug)]
pub enum Found<'t> {
    /// This route.
    Route(Matched<'t>),
    /// The virtual host wants TLS: answer 301 with [`super::redirect::to_https`].
    RequireTls,
    /// Answer 404 with the flag `NR`.
    NoRoute,
}

/// A route and what surrounds it.
#[derive(Clone, Copy, Debug)]
pub struct Matched<'t> {
    /// Where it stands; [`RouteTable::get`] gives the rest back.
    pub id: RouteId,
    /// The whole configuration.
    pub configuration: &'t RouteConfiguration,
    /// The virtual host.
    pub virtual_host: &'t VirtualHost,
    /// Name of the virtual host, to be shared.
    pub virtual_host_name: &'t Arc<str>,
    /// The route.
    pub route: &'t Arc<Route>,
    /// Name of the route, to be shared.
    pub route_name: &'t Arc<str>,
}

impl<'t> Matched<'t> {
    /// The header changes that hold for this route.
    pub fn levels(&self) -> Levels<'t> {
        Levels {
            weighted: None,
            route: &self.route.headers,
            virtual_host: &self.virtual_host.headers,
            configuration: &self.configuration.headers,
            most_specific_wins: self.configuration.most_specific_wins,
        }
    }
}

impl RouteTable {
    /// A table of these routes.
    pub fn new(configuration: &Arc<RouteConfiguration>) -> Self {
        configuration.make_lookup();
        let names = configuration.virtual_hosts.iter().map(|_| OnceCell::new());
        Self { configuration: Arc::clone(configuration), names: names.collect(), term: None }
    }

    /// The same table as a resource of its own.
    #[must_use]
    pub fn for_term(self, term: Rc<Term>) -> Self {
        Self { term: Some(term), ..self }
    }

    /// The editions of the configuration that have it; `None` when those are the listener's.
    pub fn term(&self) -> Option<&Rc<Term>> {
        self.term.as_ref()
    }

    /// The configuration the table was made of.
    pub fn configuration(&self) -> &Arc<RouteConfiguration> {
        &self.configuration
    }

    /// The first route of the request's virtual host that matches. `random` decides about
    /// `runtime_fraction`.
    pub fn find(&self, head: &RequestHead, random: u64) -> Found<'_> {
        let found = self.configuration.virtual_host_of(&head.authority);
        let Some((position, virtual_host)) =
            found.and_then(|at| Some((at, self.configuration.virtual_hosts.get(at)?)))
        else {
            return Found::NoRoute;
        };
        if wants_tls(virtual_host.require_tls, head) {
            return Found::RequireTls;
        }
        let route = self.configuration.route_of(position, head.path_only(), |at| {
            virtual_host
                .routes
                .get(at)
                .is_some_and(|route| matcher::matches(&route.matches, head, random))
        });
        route
            .and_then(|route| self.get(RouteId { virtual_host: position, route }))
            .map_or(Found::NoRoute, Found::Route)
    }

    /// The route at a position that [`Self::find`] of this table gave.
    pub fn get(&self, id: RouteId) -> Option<Matched<'_>> {
        let virtual_host = self.configuration.virtual_hosts.get(id.virtual_host)?;
        let route = virtual_host.routes.get(id.route)?;
        let names = self.names.get(id.virtual_host)?.get_or_init(|| Names {
            host: Arc::from(&*virtual_host.name),
            routes: virtual_host.routes.iter().map(|_| OnceCell::new()).collect(),
        });
        let route_name = names.routes.get(id.route)?.get_or_init(|| Arc::from(&*route.name));
        Some(Matched {
            id,
            configuration: &self.configuration,
            virtual_host,
            virtual_host_name: &names.host,
            route,
            route_name,
        })
    }
}

fn wants_tls(require: RequireTls, head: &RequestHead) -> bool {
    let plain = || head.get(b":scheme") != Some(b"https");
    match require {
        RequireTls::None => false,
        RequireTls::All => plain(),
        RequireTls::ExternalOnly => {
            plain() && head.headers.get(b"x-envoy-internal") != Some(b"true")
        }
    }
}
