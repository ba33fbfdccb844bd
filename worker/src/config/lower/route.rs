//! Route tables: virtual hosts, routes and how they match.

use std::{collections::HashMap, sync::Arc};

use super::{
    super::{
        hcm::HttpFilter,
        message::Msg,
        route::{
            Action, FilterLevels, Lookup, MirrorPolicy, PathMatcher, RequireTls, Route,
            RouteConfiguration, RouteMatch, Upgrade, VirtualHost,
        },
        source::At,
    },
    Lower, common, matcher,
    retry::HostRetry,
};

/// Envoy's limit of a direct response's body, bytes.
const BODY_BYTES: usize = 4096;

/// What routes need to know about the connection manager that uses them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct User<'a> {
    /// `upgrade_configs`.
    pub(crate) upgrades: &'a [Upgrade],
    /// `http_filters`.
    pub(crate) filters: &'a [HttpFilter],
}

/// What routes need to know about the table they are in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    /// `validate_clusters`: an unknown cluster is an error.
    pub(super) validate_clusters: bool,
    /// Largest body of a direct response, bytes.
    pub(super) max_body: usize,
    /// Copies that are sent unless a route says another thing.
    pub(super) mirrors: &'a [MirrorPolicy],
    /// The connection manager; `None` when the table is a resource by itself and nobody can tell yet who
    /// uses it.
    pub(super) user: Option<User<'a>>,
}

impl Lower<'_> {
    /// Lowers a route table. One that stands in a connection manager must name known clusters unless it
    /// says otherwise.
    pub(super) fn route_config(&self, message: &Msg, user: User<'_>) -> RouteConfiguration {
        let validate_clusters = message.flag("validate_clusters").unwrap_or(true);
        self.route_table(message, validate_clusters, Some(user))
    }

    /// Lowers a route table.
    pub(super) fn route_table(
        &self,
        message: &Msg,
        validate_clusters: bool,
        user: Option<User<'_>>,
    ) -> RouteConfiguration {
        let mut table = Table {
            mirrors: &[],
            validate_clusters,
            max_body: message
                .uint("max_direct_response_body_size_bytes")
                .map_or(BODY_BYTES, common::size),
            user,
        };
        let mirrors = self.mirrors(message, table);
        table.mirrors = &mirrors;
        self.unique_hosts(message);
        let filters = self.filter_levels(message, &None, table.user);
        let configuration = RouteConfiguration {
            name: message.text("name").to_owned(),
            virtual_hosts: message
                .messages("virtual_hosts")
                .map(|host| self.virtual_host(host, &filters, table))
                .collect(),
            headers: self.header_changes(message),
            most_specific_wins: message
                .flag("most_specific_header_mutations_wins")
                .unwrap_or(false),
            internal_only_headers: message
                .items("internal_only_headers")
                .iter()
                .map(|item| item.text().to_ascii_lowercase())
                .collect(),
            lookup: Lookup::default(),
        };
        configuration.make_lookup();
        configuration
    }

    /// Domains must not stand twice in a table, names should not.
    fn unique_hosts(&self, message: &Msg) {
        let mut names: HashMap<&str, u32> = HashMap::new();
        let mut domains: HashMap<String, u32> = HashMap::new();
        for host in message.messages("virtual_hosts") {
            let at = host.at_of("name");
            if let Some(first) = names.insert(host.text("name"), at.span.line) {
                let name = host.text("name");
                let text = format!("virtual host `{name}` stands twice, first on line {first}");
                self.report.warning(&at, text).hint(
                    "both work; give each its own name, so that messages can tell them apart",
                );
            }
            for item in host.items("domains") {
                let domain = item.text().to_ascii_lowercase();
                self.domain(&domain, &item.at);
                let line = item.at.span.line;
                if let Some(first) = domains.insert(domain.clone(), line) {
                    let text = format!("domain `{domain}` stands twice, first on line {first}");
                    self.report.error(&item.at, text).hint("a domain belongs to one virtual host");
                }
            }
        }
    }

    fn domain(&self, domain: &str, at: &At) {
        if domain.contains("://") {
            self.report
                .error(at, format!("`{domain}` is not a domain"))
                .hint("write the name alone, without `http://`");
        }
        let inner = domain.strip_prefix('*').or_else(|| domain.strip_suffix('*')).unwrap_or(domain);
        if inner.contains('*') {
            self.report.error(
                at,
                format!("`*` can only be the first or the last character of `{domain}`"),
            );
        }
    }

    fn virtual_host(&self, message: &Msg, around: &FilterLevels, table: Table<'_>) -> VirtualHost {
        let filters = self.filter_levels(message, around, table.user);
        let mirrors = self.mirrors(message, table);
        let table = Table { mirrors: &mirrors, ..table };
        let retry = self.host_retry(message);
        let routes = message
            .messages("routes")
            .filter_map(|route| self.route(route, (&filters, &retry), table))
            .map(Arc::new)
            .collect();
        VirtualHost {
            name: message.text("name").to_owned(),
            domains: message
                .items("domains")
                .iter()
                .map(|item| item.text().to_ascii_lowercase())
                .collect(),
            routes,
            require_tls: match message.choice("require_tls") {
                Some("ALL") => RequireTls::All,
                Some("EXTERNAL_ONLY") => RequireTls::ExternalOnly,
                _ => RequireTls::None,
            },
            headers: self.header_changes(message),
        }
    }

    fn route(
        &self,
        message: &Msg,
        (around, host): (&FilterLevels, &HostRetry),
        table: Table<'_>,
    ) -> Option<Route> {
        let filters = self.filter_levels(message, around, table.user);
        let headers = self.header_changes(message);
        let matches = message.message("match").and_then(|m| self.route_match(m));
        let mut action = self.action(message, &filters, table)?;
        if let (Action::Forward(forward), Some(inner)) = (&mut action, message.message("route")) {
            forward.retry = self.route_retry(message, inner, host);
            self.per_try_timeout(inner, forward);
        }
        let matches = matches?;
        self.connect(message, &matches, &action, table);
        Some(Route { name: message.text("name").to_owned(), matches, action, headers, filters })
    }

    /// A route for CONNECT works only where CONNECT is allowed.
    fn connect(&self, message: &Msg, matches: &RouteMatch, action: &Action, table: Table<'_>) {
        let (PathMatcher::Connect, Action::Forward(forward)) = (&matches.path, action) else {
            return;
        };
        let find = |list: &[Upgrade]| {
            list.iter().find(|upgrade| upgrade.upgrade_type == "connect").map(|u| u.enabled)
        };
        let Some(user) = table.user else { return };
        let allowed = find(&forward.upgrades).or_else(|| find(user.upgrades)).unwrap_or(false);
        if !allowed {
            let at = message.at_of("match");
            self.report
                .warning(&at, "this route matches CONNECT, which no `upgrade_configs` allows")
                .hint("add `upgrade_configs: [{ upgrade_type: CONNECT }]`");
        }
    }

    fn route_match(&self, message: &Msg) -> Option<RouteMatch> {
        let (field, set) = common::chosen(message, "path_specifier")?;
        let text = set.item.text();
        let path = match field {
            "prefix" => {
                self.path_text(text, "prefix", &set.item.at);
                PathMatcher::Prefix(text.to_owned())
            }
            "path" => {
                self.path_text(text, "path", &set.item.at);
                PathMatcher::Exact(text.to_owned())
            }
            "path_separated_prefix" => PathMatcher::SeparatedPrefix(text.to_owned()),
            "safe_regex" => PathMatcher::Regex(self.full_regex(set.item.message()?)?),
            "connect_matcher" => PathMatcher::Connect,
            _ => return None,
        };
        let fraction = message
            .message("runtime_fraction")
            .and_then(|fraction| fraction.message("default_value"))
            .map(matcher::parts_per_million);
        Some(RouteMatch {
            path,
            case_sensitive: message.flag("case_sensitive").unwrap_or(true),
            headers: self.header_matchers(message),
            query_parameters: self.query_matchers(message),
            grpc_only: message.has("grpc"),
            fraction_ppm: fraction,
        })
    }

    /// What can never match is a mistake worth a word.
    fn path_text(&self, text: &str, field: &str, at: &At) {
        let problem = if !text.is_empty() && !text.starts_with('/') && text != "*" {
            "it does not start with `/`"
        } else if text.contains('?') {
            "it has a `?`: the query takes no part in it"
        } else {
            return;
        };
        self.report.warning(at, format!("`{field}: {text}` never matches: {problem}"));
    }
}
