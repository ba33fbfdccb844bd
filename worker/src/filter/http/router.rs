//! The router: the terminal HTTP filter. It finds the route, changes the heads as the route says,
//! and names the cluster. Sending is the connection's business.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::{
        model::{ClusterIndex, Node},
        route::{
            Action, ClusterTarget, DirectResponse, FilterLevels, Redirect, Route, RouteAction,
            Upgrade, WeightedCluster,
        },
    },
    http::{
        forwarded,
        head::{RequestHead, ResponseHead},
        local_reply::{Body, LocalReply},
        stream_info::{LogContext, StreamInfo, UpstreamInfo},
    },
    route::{
        self, EnvoyHeaders, Found, Matched, RouteId, RouteSlot, RouteTable, headers, redirect,
        retry::Tries,
    },
    stats::HttpStats,
    thread::{Thread, ThreadCluster},
};

/// The least time an endpoint is told of.
const LEAST_TIMEOUT: Duration = Duration::from_millis(1);

/// The router of one connection manager.
#[derive(Debug)]
pub struct Router {
    routes: Rc<RouteSlot>,
    envoy_headers: EnvoyHeaders,
    stream_idle_timeout: Option<Duration>,
}

/// Whose answer a response is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The upstream's.
    Upstream,
    /// The upstream's to a request that becomes a tunnel, or was to become one, and so has no end.
    Tunnel,
    /// Our own.
    Local,
}

/// What was found for a request before its filters are asked, and the table it was found in.
#[derive(Clone, Debug)]
pub struct Choice {
    table: Option<Rc<RouteTable>>,
    route: Chosen,
    random: u64,
}

#[derive(Clone, Copy, Debug)]
enum Chosen {
    Route(RouteId),
    RequireTls,
    Nothing,
}

impl Choice {
    /// Nothing was looked for yet.
    pub const NONE: Self = Self { table: None, route: Chosen::Nothing, random: 0 };

    /// The route, if there is one.
    pub fn id(&self) -> Option<RouteId> {
        match self.route {
            Chosen::Route(id) => Some(id),
            Chosen::RequireTls | Chosen::Nothing => None,
        }
    }

    /// The table it was looked for in.
    pub fn table(&self) -> Option<&Rc<RouteTable>> {
        self.table.as_ref()
    }

    fn matched(&self) -> Option<Matched<'_>> {
        self.table.as_ref()?.get(self.id()?)
    }

    /// The half of the random number that did not choose the route.
    fn of_cluster(&self) -> u64 {
        self.random.rotate_left(32)
    }
}

/// Where a request goes.
#[derive(Debug)]
pub struct Target {
    /// The cluster as this thread sees it.
    pub cluster: Rc<ThreadCluster>,
    /// From the end of the request to the end of the response.
    pub timeout: Option<Duration>,
    /// Longest pause of the stream.
    pub idle_timeout: Option<Duration>,
    /// The route, for what it says about the endpoint's name and upgrades.
    pub route: Arc<Route>,
    /// What one try may take, unless it may go on beside the next.
    pub per_try_timeout: Option<Duration>,
    /// Number and limits of its tries, if there may be more than one or each is limited.
    pub tries: Option<Box<Tries>>,
    weighted: Option<usize>,
}

impl Target {
    /// What the route says about forwarding.
    pub fn action(&self) -> Option<&RouteAction> {
        match &self.route.action {
            Action::Forward(action) => Some(action),
            Action::Redirect(_) | Action::DirectResponse(_) | Action::NonForwarding => None,
        }
    }

    /// `upgrade_configs` of the route.
    pub fn upgrades(&self) -> &[Upgrade] {
        self.action().map_or(&[], |action| &action.upgrades)
    }

    /// Position of its entry in `weighted_clusters`.
    pub fn weighted(&self) -> Option<usize> {
        self.weighted
    }

    fn weighted_entry(&self) -> Option<&WeightedCluster> {
        match &self.action()?.target {
            ClusterTarget::Weighted(entries) => entries.get(self.weighted?),
            ClusterTarget::Cluster(_) | ClusterTarget::Unknown(_) | ClusterTarget::Header(_) => {
                None
            }
        }
    }
}

impl Router {
    /// A router for these routes.
    pub fn new(
        routes: Rc<RouteSlot>,
        envoy_headers: EnvoyHeaders,
        stream_idle_timeout: Option<Duration>,
    ) -> Self {
        Self { routes, envoy_headers, stream_idle_timeout }
    }

    /// The routes for a request that begins.
    pub fn table(&self) -> Rc<RouteTable> {
        self.routes.current()
    }

    /// Finds the route; `random` decides wherever a route leaves something to chance. This comes before
    /// the filters, as in Envoy: they are configured by the route, and do not change it.
    pub fn find(
        table: Rc<RouteTable>,
        request: &RequestHead,
        random: u64,
        info: &mut StreamInfo,
    ) -> Choice {
        let route = match table.find(request, random) {
            Found::Route(matched) => {
                info.route_name = Arc::clone(matched.route_name);
                info.virtual_host = Arc::clone(matched.virtual_host_name);
                Chosen::Route(matched.id)
            }
            Found::RequireTls => Chosen::RequireTls,
            Found::NoRoute => Chosen::Nothing,
        };
        Choice { table: Some(table), route, random }
    }

    /// What a route says about filters; `entry` is the position of its entry of `weighted_clusters`.
    pub fn filters(choice: &Choice, entry: Option<usize>) -> FilterLevels {
        let route = choice.matched()?.route;
        let weighted = match &route.action {
            Action::Forward(action) => entry.and_then(|at| action.weighted().get(at)),
            Action::Redirect(_) | Action::DirectResponse(_) | Action::NonForwarding => None,
        };
        weighted.map_or(&route.filters, |entry| &entry.filters).clone()
    }

    /// The cluster the request will go to, and the position of its entry in `weighted_clusters`, for the
    /// filters.
    pub fn cluster_of(
        thread: &Thread,
        choice: &Choice,
        request: &RequestHead,
    ) -> (Option<ClusterIndex>, Option<usize>) {
        let matched = choice.matched();
        let Some(Action::Forward(action)) = matched.map(|matched| &matched.route.action) else {
            return (None, None);
        };
        let Some(found) = route::choose(action, request, choice.of_cluster()) else {
            return (None, None);
        };
        let index = match found.target {
            route::Target::Index(index) => Some(index),
            route::Target::Name(name) => {
                std::str::from_utf8(name).ok().and_then(|name| thread.cluster_index(name))
            }
        };
        (index, found.weighted.and_then(|entry| position(action, entry)))
    }

    /// Prepares the request for the cluster of its route, or gives the answer.
    ///
    /// # Errors
    /// The answer, when the request does not go to a cluster.
    pub fn route(
        &self,
        thread: &Thread,
        stats: &HttpStats,
        choice: &Choice,
        request: &mut RequestHead,
        info: &mut StreamInfo,
    ) -> Result<Target, LocalReply> {
        stats.rq_total.inc();
        let matched = match choice.route {
            Chosen::Route(_) => choice.matched(),
            Chosen::RequireTls => {
                let to = redirect::to_https(request);
                return Err(LocalReply::new(301, "", "tls_required").header(b"location", to));
            }
            Chosen::Nothing => None,
        };
        let Some(matched) = matched else {
            stats.no_route.inc();
            return Err(LocalReply::no_route());
        };
        match &matched.route.action {
            Action::Forward(action) => {
                let found = choose(thread, action, choice, request);
                match found {
                    Some((cluster, weighted)) => {
                        // Headers may name it, and the attempt that they are for.
                        info.upstream = Some(UpstreamInfo::new(&cluster.name));
                        let cx = context(info, &thread.bootstrap.node, info.started);
                        let mut target = self.target(&matched, action, request, cluster, weighted);
                        self.finalize(&mut target, &matched, action, request, &cx);
                        Ok(target)
                    }
                    None => {
                        stats.no_cluster.inc();
                        Err(LocalReply::no_cluster(action.not_found_status))
                    }
                }
            }
            Action::Redirect(to) => Err(redirected(stats, to, &matched, request)),
            Action::DirectResponse(answer) => Err(direct(stats, answer)),
            Action::NonForwarding => Err(LocalReply::no_cluster(503)),
        }
    }

    /// The route that a request found before, in another process with the same configuration.
    pub fn found_before(&self, id: RouteId) -> Choice {
        Choice { table: Some(self.routes.current()), route: Chosen::Route(id), random: 0 }
    }

    /// Where a request goes that was routed before, in another process with the same configuration.
    /// `timeouts` are those of the request and of its pauses.
    pub fn resume(
        thread: &Thread,
        choice: &Choice,
        cluster: &str,
        (timeout, idle_timeout): (Option<Duration>, Option<Duration>),
        weighted: Option<usize>,
    ) -> Option<Target> {
        let cluster = thread.cluster_by_name(cluster)?;
        let route = Arc::clone(choice.matched()?.route);
        Some(Target {
            cluster,
            timeout,
            idle_timeout,
            route,
            per_try_timeout: None,
            tries: None,
            weighted,
        })
    }

    fn target(
        &self,
        matched: &Matched<'_>,
        action: &RouteAction,
        request: &RequestHead,
        cluster: Rc<ThreadCluster>,
        weighted: Option<usize>,
    ) -> Target {
        Target {
            cluster,
            timeout: timeout(request, action),
            idle_timeout: action.idle_timeout.unwrap_or(self.stream_idle_timeout),
            route: Arc::clone(matched.route),
            per_try_timeout: None,
            tries: None,
            weighted,
        }
    }

    /// Changes the request as the route says, and takes from it what it says of tries.
    fn finalize(
        &self,
        target: &mut Target,
        matched: &Matched<'_>,
        action: &RouteAction,
        request: &mut RequestHead,
        cx: &LogContext<'_>,
    ) {
        let entry = target.weighted_entry();
        route::finalize_request(request, matched, entry, cx, self.envoy_headers);
        target.tries = Tries::of(&action.retry, request, target.timeout);
        if let Some(tries) = &target.tries {
            let per_try = tries.per_try;
            target.per_try_timeout = per_try.timeout.filter(|_| !per_try.hedge);
            if !tries.asked.is_empty() {
                forwarded::remove_consumed(&mut request.headers);
            }
        }
        self.add_timeout_header(target, Duration::ZERO, request);
    }

    /// Changes the request for the endpoint of this name that is to get it. May be done again for
    /// another one.
    pub fn finalize_for_endpoint(&self, request: &mut RequestHead, target: &Target, name: &[u8]) {
        if let Some(action) = target.action() {
            route::auto_host(request, action, name, self.envoy_headers);
        }
    }

    /// `x-envoy-expected-rq-timeout-ms`, by which the upstream knows how long it has.
    pub fn add_timeout_header(&self, target: &Target, passed: Duration, request: &mut RequestHead) {
        if self.envoy_headers == EnvoyHeaders::Suppress {
            return;
        }
        // None would say that there is time for ever.
        let left = target.timeout.map(|whole| whole.saturating_sub(passed).max(LEAST_TIMEOUT));
        let timeout = target.per_try_timeout.into_iter().chain(left).min();
        if let Some(timeout) = timeout {
            let mut digits = itoa::Buffer::new();
            let millis = digits.format(timeout.as_millis());
            request.headers.set(b"x-envoy-expected-rq-timeout-ms", millis.as_bytes());
        }
    }

    /// Changes the head of a response, also of one of our own, as its route says.
    pub fn finalize_response(
        &self,
        answer: Answer,
        choice: &Choice,
        target: Option<&Target>,
        response: &mut ResponseHead,
        cx: &LogContext<'_>,
    ) {
        // As in Envoy, only once all of the request is there: before, the client takes part in it.
        if let (Answer::Upstream, EnvoyHeaders::Add, Some(received)) =
            (answer, self.envoy_headers, cx.info.request_received)
        {
            let mut digits = itoa::Buffer::new();
            let millis = digits.format(cx.now.saturating_duration_since(received).as_millis());
            response.headers.set(b"x-envoy-upstream-service-time", millis.as_bytes());
        }
        let Some(matched) = choice.matched() else { return };
        let levels = matched.levels().with_weighted(target.and_then(Target::weighted_entry));
        headers::apply_response(response, &levels, cx);
    }
}

/// How long a request may take: as its route says, or as an internal client says for this one, by
/// `x-envoy-upstream-rq-timeout-ms`, where 0 is for ever.
fn timeout(request: &RequestHead, action: &RouteAction) -> Option<Duration> {
    let wanted = request.headers.get(b"x-envoy-upstream-rq-timeout-ms");
    let millis = wanted.and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok());
    match millis {
        None => action.timeout,
        Some(0) => None,
        Some(millis) => Some(Duration::from_millis(millis)),
    }
}

/// The cluster of a forwarding route, and the entry of `weighted_clusters` it stands in.
fn choose(
    thread: &Thread,
    action: &RouteAction,
    choice: &Choice,
    request: &RequestHead,
) -> Option<(Rc<ThreadCluster>, Option<usize>)> {
    let choice = route::choose(action, request, choice.of_cluster())?;
    let cluster = match choice.target {
        route::Target::Index(index) => thread.cluster(index),
        route::Target::Name(name) => thread.cluster_by_name(std::str::from_utf8(name).ok()?),
    };
    Some((cluster?, choice.weighted.and_then(|entry| position(action, entry))))
}

fn context<'a>(info: &'a StreamInfo, node: &'a Node, now: Instant) -> LogContext<'a> {
    LogContext { info, request: None, response: None, trailers: None, now, node }
}

fn position(action: &RouteAction, entry: &WeightedCluster) -> Option<usize> {
    match &action.target {
        ClusterTarget::Weighted(entries) => {
            entries.iter().position(|other| std::ptr::eq(other, entry))
        }
        ClusterTarget::Cluster(_) | ClusterTarget::Unknown(_) | ClusterTarget::Header(_) => None,
    }
}

fn redirected(
    stats: &HttpStats,
    to: &Redirect,
    matched: &Matched<'_>,
    request: &RequestHead,
) -> LocalReply {
    stats.rq_redirect.inc();
    // Envoy counts its redirects here, and none above.
    stats.rq_direct_response.inc();
    let location = redirect::location(to, &matched.route.matches, request);
    LocalReply::new(to.status, "", "direct_response").header(b"location", location)
}

fn direct(stats: &HttpStats, answer: &DirectResponse) -> LocalReply {
    stats.rq_direct_response.inc();
    let mut reply = LocalReply::new(answer.status, "", "direct_response");
    reply.body = Body::Shared(Arc::clone(&answer.body));
    reply
}
