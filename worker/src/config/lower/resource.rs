//! Resources that come one by one, each with the same checks as if it stood in the configuration.

use std::{cell::Cell, sync::Arc};

use super::{
    super::{
        cluster::Assignment,
        kind::{Kind, Resource},
        load::LoadOptions,
        message::Msg,
        model::Bootstrap,
        route::RouteConfiguration,
        source::Report,
    },
    Lower, Others,
    route::User,
};

/// What a message of one resource became.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub(crate) name: String,
    pub(crate) resource: Resource,
    /// As [`Bootstrap::shows_upstream_local`].
    pub(crate) shows_upstream_local: bool,
    /// It is a route table that has to be made anew for each connection manager that uses it.
    pub(crate) needs_user: bool,
}

/// Makes the model of one resource. It is only good when nothing was reported as an error.
pub(crate) fn resource(
    message: &Msg,
    kind: Kind,
    (bootstrap, options): (&Bootstrap, &LoadOptions),
    report: &Report,
) -> Option<Lowered> {
    let lower = lower_for(bootstrap, options, report);
    let (name, resource) = match kind {
        Kind::Cluster => {
            let cluster = lower.cluster(message);
            (cluster.name.clone(), Resource::Cluster(Arc::new(cluster)))
        }
        Kind::ClusterLoadAssignment => {
            let name = message.text("cluster_name").to_owned();
            let endpoints = lower.assigned(message, None);
            let assignment = Assignment { name: name.clone(), endpoints };
            (name, Resource::Endpoints(Arc::new(assignment)))
        }
        Kind::Listener => {
            let mut listener = lower.listener(message)?;
            let limit = bootstrap.listener_limits.get(&listener.name);
            listener.socket.max_connections = limit.copied();
            (listener.name.clone(), Resource::Listener(Arc::new(listener)))
        }
        Kind::RouteConfiguration => {
            let table = lower.table(message, None);
            if table.name.is_empty() {
                report
                    .error(&message.at, "a `RouteConfiguration` in a file needs `name`")
                    .hint("it is what `route_config_name` of a connection manager refers to");
            }
            (table.name.clone(), Resource::Routes(Arc::new(table)))
        }
    };
    Some(Lowered {
        name,
        resource,
        shows_upstream_local: lower.shows_upstream_local.get(),
        needs_user: lower.needs_user.get(),
    })
}

/// Makes a route table for the connection manager that uses it.
pub(crate) fn routes_for(
    message: &Msg,
    user: User<'_>,
    (bootstrap, options): (&Bootstrap, &LoadOptions),
    report: &Report,
) -> RouteConfiguration {
    lower_for(bootstrap, options, report).table(message, Some(user))
}

fn lower_for<'a>(bootstrap: &Bootstrap, options: &LoadOptions, report: &'a Report) -> Lower<'a> {
    Lower {
        report,
        extensions: options.extensions,
        allow_unimplemented: options.allow_unimplemented,
        clusters: Arc::clone(&bootstrap.cluster_names),
        others: if bootstrap.dynamic.clusters.is_some() { Others::Come } else { Others::None },
        shows_upstream_local: Cell::new(false),
        needs_user: Cell::new(false),
    }
}

impl Lower<'_> {
    /// A route table that is a resource by itself: unlike one that stands in a connection manager, it may
    /// name clusters that are not there unless it says otherwise.
    fn table(&self, message: &Msg, user: Option<User<'_>>) -> RouteConfiguration {
        let validate_clusters = message.flag("validate_clusters").unwrap_or(false);
        self.route_table(message, validate_clusters, user)
    }
}
