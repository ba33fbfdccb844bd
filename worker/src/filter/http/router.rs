//! The router: the terminal HTTP filter. It finds the route, changes the heads as the route says,
//! and names the cluster. Sending is the connection's business.

use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::{
        hcm::Upgrade,
        model::Node,
        route::{
            Action, ClusterTarget, DirectResponse, Redirect, Route, RouteAction, WeightedCluster,
        },
    },
    http::{
        head::{RequestHead, ResponseHead},
        local_reply::{Body, LocalReply},
        stream_info::{LogContext, StreamInfo},
    },
    route::{self, EnvoyHeaders, Found, Matched, RouteId, RouteTable, headers, redirect},
    stats::HttpStats,
    thread::{Thread, ThreadCluster},
};

/// The router of one connection manager.
#[derive(Debug)]
pub struct Router {
    routes: RouteTable,
    envoy_headers: EnvoyHeaders,
    stream_idle_timeout: Option<Duration>,
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
        routes: RouteTable,
        envoy_headers: EnvoyHeaders,
        stream_idle_timeout: Option<Duration>,
    ) -> Self {
        Self { routes, envoy_headers, stream_idle_timeout }
    }

    /// Finds the route and prepares the request for its cluster, or gives the answer.
    ///
    /// # Errors
    /// The answer, when the request does not go to a cluster.
    pub fn route(
        &self,
        thread: &Thread,
        stats: &HttpStats,
        random: u64,
        request: &mut RequestHead,
        info: &mut StreamInfo,
    ) -> (Option<RouteId>, Result<Target, LocalReply>) {
        stats.rq_total.inc();
        let matched = match self.routes.find(request, random) {
            Found::Route(matched) => matched,
            Found::RequireTls => {
                let to = redirect::to_https(request);
                let reply = LocalReply::new(301, "", "tls_required").header(b"location", to);
                return (None, Err(reply));
            }
            Found::NoRoute => {
                stats.no_route.inc();
                return (None, Err(LocalReply::no_route()));
            }
        };
        let id = Some(matched.id);
        info.route_name = Arc::clone(matched.route_name);
        info.virtual_host = Arc::clone(matched.virtual_host_name);
        let result = match &matched.route.action {
            Action::Forward(action) => {
                let found = choose(thread, action, random, request);
                match found {
                    Some((cluster, weighted)) => {
                        let cx = context(info, &thread.bootstrap.node, info.started);
                        Ok(self.target(&matched, action, cluster, weighted, (request, &cx)))
                    }
                    None => {
                        stats.no_cluster.inc();
                        Err(LocalReply::no_cluster(action.not_found_status))
                    }
                }
            }
            Action::Redirect(to) => Err(redirected(stats, to, &matched, request)),
            Action::DirectResponse(answer) => Err(direct(stats, answer)),
            Action::NonForwarding => Err(LocalReply::no_route()),
        };
        (id, result)
    }

    /// Where a request goes that was routed before, in another process with the same configuration.
    /// `timeouts` are those of the request and of its pauses.
    pub fn resume(
        &self,
        thread: &Thread,
        id: RouteId,
        cluster: &str,
        (timeout, idle_timeout): (Option<Duration>, Option<Duration>),
        weighted: Option<usize>,
    ) -> Option<Target> {
        let cluster = Rc::clone(thread.cluster_by_name(cluster)?);
        let route = Arc::clone(self.routes.get(id)?.route);
        Some(Target { cluster, timeout, idle_timeout, route, weighted })
    }

    fn target(
        &self,
        matched: &Matched<'_>,
        action: &RouteAction,
        cluster: Rc<ThreadCluster>,
        weighted: Option<usize>,
        (request, cx): (&mut RequestHead, &LogContext<'_>),
    ) -> Target {
        let target = Target {
            cluster,
            timeout: action.timeout,
            idle_timeout: action.idle_timeout.unwrap_or(self.stream_idle_timeout),
            route: Arc::clone(matched.route),
            weighted,
        };
        let entry = target.weighted_entry();
        route::finalize_request(request, matched, entry, cx, self.envoy_headers);
        self.add_timeout_header(&target, request);
        target
    }

    /// `x-envoy-expected-rq-timeout-ms`, by which the upstream knows how long it has.
    fn add_timeout_header(&self, target: &Target, request: &mut RequestHead) {
        if let (EnvoyHeaders::Add, Some(timeout)) = (self.envoy_headers, target.timeout) {
            let mut digits = itoa::Buffer::new();
            let millis = digits.format(timeout.as_millis());
            request.headers.set(b"x-envoy-expected-rq-timeout-ms", millis.as_bytes());
        }
    }

    /// Changes the head of a response, also of one of our own, as its route says.
    pub fn finalize_response(
        &self,
        id: Option<RouteId>,
        target: Option<&Target>,
        response: &mut ResponseHead,
        cx: &LogContext<'_>,
    ) {
        if let (EnvoyHeaders::Add, Some(sent)) = (self.envoy_headers, cx.info.upstream_first_sent) {
            let mut digits = itoa::Buffer::new();
            let millis = digits.format(cx.now.saturating_duration_since(sent).as_millis());
            response.headers.set(b"x-envoy-upstream-service-time", millis.as_bytes());
        }
        let Some(matched) = id.and_then(|id| self.routes.get(id)) else { return };
        let levels = matched.levels().with_weighted(target.and_then(Target::weighted_entry));
        headers::apply_response(response, &levels, cx);
    }
}

/// The cluster of a forwarding route, and the entry of `weighted_clusters` it stands in.
fn choose(
    thread: &Thread,
    action: &RouteAction,
    random: u64,
    request: &RequestHead,
) -> Option<(Rc<ThreadCluster>, Option<usize>)> {
    // Another half of the random number than the one that chose the route.
    let choice = route::choose(action, request, random.rotate_left(32))?;
    let cluster = match choice.target {
        route::Target::Index(index) => thread.cluster(index),
        route::Target::Name(name) => thread.cluster_by_name(std::str::from_utf8(name).ok()?),
    };
    Some((Rc::clone(cluster?), choice.weighted.and_then(|entry| position(action, entry))))
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
    let location = redirect::location(to, &matched.route.matches, request);
    LocalReply::new(to.status, "", "direct_response").header(b"location", location)
}

fn direct(stats: &HttpStats, answer: &DirectResponse) -> LocalReply {
    stats.rq_direct_response.inc();
    let mut reply = LocalReply::new(answer.status, "", "direct_response");
    reply.body = Body::Shared(Arc::clone(&answer.body));
    reply
}
