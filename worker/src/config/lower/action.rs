//! What routes do: forward, redirect, answer.

use std::sync::Arc;

use super::{
    super::{
        message::Msg,
        retry::RetryOptions,
        route::{
            Action, ClusterTarget, DirectResponse, FilterLevels, HostRewrite, MirrorPolicy,
            MirrorTarget, PathRewrite, Redirect, RedirectPath, RouteAction, WeightedCluster,
        },
        target::WeightedTarget,
    },
    Lower, common, matcher,
    route::Table,
};

impl Lower<'_> {
    /// Lowers the action of a route.
    pub(super) fn action(
        &self,
        route: &Msg,
        filters: &FilterLevels,
        table: Table<'_>,
    ) -> Option<Action> {
        let (field, set) = common::chosen(route, "action")?;
        let message = set.item.message()?;
        match field {
            "route" => Some(Action::Forward(Box::new(self.forward(message, filters, table)?))),
            "redirect" => Some(Action::Redirect(Box::new(self.redirect(message)))),
            "direct_response" => Some(Action::DirectResponse(self.direct(message, table))),
            "non_forwarding_action" => Some(Action::NonForwarding),
            _ => None,
        }
    }

    fn forward(
        &self,
        message: &Msg,
        filters: &FilterLevels,
        table: Table<'_>,
    ) -> Option<RouteAction> {
        let target = self.target(message, filters, table);
        let rewrite = self.rewrite(message);
        let host_rewrite = self.host_rewrite(message);
        let upgrades = self.upgrades(message);
        let not_found_status = match message.choice("cluster_not_found_response_code") {
            Some("NOT_FOUND") => 404,
            Some("INTERNAL_SERVER_ERROR") => 500,
            _ => 503,
        };
        Some(RouteAction {
            target: target?,
            not_found_status,
            rewrite,
            host_rewrite,
            append_x_forwarded_host: message.flag("append_x_forwarded_host").unwrap_or(false),
            timeout: common::limit(message, "timeout", Some(RouteAction::TIMEOUT)),
            idle_timeout: message
                .has("idle_timeout")
                .then(|| common::limit(message, "idle_timeout", None)),
            upgrades,
            high_priority: message.choice("priority") == Some("HIGH"),
            mirrors: self.mirrors(message, table),
            retry: RetryOptions::default(),
        })
    }

    /// `request_mirror_policies` of a table, a virtual host or a route; those of the level above when this
    /// one has none.
    pub(super) fn mirrors(&self, message: &Msg, above: Table<'_>) -> Vec<MirrorPolicy> {
        let policies = message.messages("request_mirror_policies");
        let mirrors: Vec<_> =
            policies.filter_map(|policy| self.mirror(policy, above.validate_clusters)).collect();
        if mirrors.is_empty() { above.mirrors.to_vec() } else { mirrors }
    }

    fn mirror(&self, message: &Msg, validate_clusters: bool) -> Option<MirrorPolicy> {
        let (name, header) = (message.text("cluster"), message.text("cluster_header"));
        if name.is_empty() == header.is_empty() {
            let text = "a mirror policy needs either `cluster` or `cluster_header`";
            self.report.error(&message.at, text).hint("say where the copies go");
            return None;
        }
        let target = if name.is_empty() {
            MirrorTarget::Header(header.to_ascii_lowercase())
        } else if validate_clusters || self.find_cluster(name).is_some() {
            MirrorTarget::Cluster(self.cluster_ref(name, &message.at_of("cluster"))?)
        } else {
            // No cluster of that name comes later, so nobody gets a copy.
            return None;
        };
        let fraction = message.message("runtime_fraction");
        let host = message.text("host_rewrite_literal");
        Some(MirrorPolicy {
            target,
            fraction_ppm: fraction
                .and_then(|fraction| fraction.message("default_value"))
                .map(matcher::parts_per_million),
            keep_host: message.flag("disable_shadow_host_suffix_append").unwrap_or(false),
            host: (!host.is_empty()).then(|| host.to_owned()),
        })
    }

    fn target(
        &self,
        message: &Msg,
        filters: &FilterLevels,
        table: Table<'_>,
    ) -> Option<ClusterTarget> {
        let (field, set) = common::chosen(message, "cluster_specifier")?;
        match field {
            "cluster" => {
                let name = set.item.text();
                if !table.validate_clusters && self.find_cluster(name).is_none() {
                    return Some(ClusterTarget::Unknown(name.to_owned()));
                }
                self.cluster_ref(name, &set.item.at).map(ClusterTarget::Cluster)
            }
            "cluster_header" => Some(ClusterTarget::Header(set.item.text().to_ascii_lowercase())),
            "weighted_clusters" => Some(self.weighted(set.item.message()?, filters, table)),
            // Reported as not implemented.
            _ => None,
        }
    }

    fn weighted(&self, message: &Msg, filters: &FilterLevels, table: Table<'_>) -> ClusterTarget {
        let mut entries = Vec::new();
        let mut total: u64 = 0;
        for entry in message.messages("clusters") {
            let weight = entry.uint32("weight").unwrap_or(0);
            total += u64::from(weight);
            let headers = self.header_changes(entry);
            let filters = self.filter_levels(entry, filters, table.user);
            let host_rewrite = entry.text("host_rewrite_literal");
            let Some(cluster) = self.cluster_ref(entry.text("name"), &entry.at_of("name")) else {
                continue;
            };
            let host_rewrite = (!host_rewrite.is_empty()).then(|| host_rewrite.to_owned());
            let target = WeightedTarget { cluster, weight };
            entries.push(WeightedCluster { target, headers, host_rewrite, filters });
        }
        let at = message.at_of("clusters");
        if total == 0 {
            self.report
                .error(&at, "the sum of the weights is 0, so no cluster would ever be chosen")
                .hint("give at least one entry a `weight` above 0");
        }
        if total > u64::from(u32::MAX) {
            let text = format!("the sum of the weights is {total}, more than {}", u32::MAX);
            self.report.error(&at, text);
        }
        if let Some(given) = message.uint("total_weight")
            && given != total
        {
            let at = message.at_of("total_weight");
            let text = format!("`total_weight` is {given}, but the weights sum up to {total}");
            self.report.error(&at, text).hint("leave it out: it is deprecated");
        }
        ClusterTarget::Weighted(entries)
    }

    fn rewrite(&self, message: &Msg) -> Option<PathRewrite> {
        let prefix = message.text("prefix_rewrite");
        if !prefix.is_empty() && message.has("regex_rewrite") {
            let at = message.at_of("regex_rewrite");
            let text = "`prefix_rewrite` and `regex_rewrite` exclude each other";
            self.report.error(&at, text).hint("keep one of them");
        }
        if let Some(rewrite) = message.message("regex_rewrite") {
            let (regex, text) = self.substitution(rewrite)?;
            return Some(PathRewrite::Regex(regex, text));
        }
        (!prefix.is_empty()).then(|| PathRewrite::Prefix(prefix.to_owned()))
    }

    fn host_rewrite(&self, message: &Msg) -> Option<HostRewrite> {
        let (field, set) = common::chosen(message, "host_rewrite_specifier")?;
        match field {
            "host_rewrite_literal" => Some(HostRewrite::Literal(set.item.text().to_owned())),
            "host_rewrite_header" => {
                Some(HostRewrite::Header(set.item.text().to_ascii_lowercase()))
            }
            "auto_host_rewrite" => {
                (message.flag("auto_host_rewrite") == Some(true)).then_some(HostRewrite::Auto)
            }
            "host_rewrite_path_regex" => {
                let (regex, text) = self.substitution(set.item.message()?)?;
                Some(HostRewrite::PathRegex(regex, text))
            }
            _ => None,
        }
    }

    fn redirect(&self, message: &Msg) -> Redirect {
        let text = |name| match message.text(name) {
            "" => None,
            text => Some(text.to_owned()),
        };
        let https = message.flag("https_redirect") == Some(true);
        let scheme = if https { Some("https".to_owned()) } else { text("scheme_redirect") };
        let path = if let Some(path) = text("path_redirect") {
            RedirectPath::Replace(path)
        } else if let Some(prefix) = text("prefix_rewrite") {
            RedirectPath::Prefix(prefix)
        } else {
            message
                .message("regex_rewrite")
                .and_then(|rewrite| self.substitution(rewrite))
                .map_or(RedirectPath::Keep, |(regex, text)| RedirectPath::Regex(regex, text))
        };
        let port = message.uint("port_redirect").filter(|port| *port != 0);
        let narrow = port.and_then(|port| u16::try_from(port).ok());
        if port.is_some() && narrow.is_none() {
            self.report.error(&message.at_of("port_redirect"), "a port must be 1..=65535");
        }
        Redirect {
            status: match message.choice("response_code") {
                Some("FOUND") => 302,
                Some("SEE_OTHER") => 303,
                Some("TEMPORARY_REDIRECT") => 307,
                Some("PERMANENT_REDIRECT") => 308,
                _ => 301,
            },
            scheme,
            host: text("host_redirect"),
            port: narrow,
            path,
            strip_query: message.flag("strip_query").unwrap_or(false),
        }
    }

    fn direct(&self, message: &Msg, table: Table<'_>) -> DirectResponse {
        let body = message.message("body").and_then(|source| self.data(source));
        let body: Arc<[u8]> = body.unwrap_or_else(|| Arc::from([]));
        if body.len() > table.max_body {
            let (size, most) = (body.len(), table.max_body);
            let text = format!("the body has {size} bytes, at most {most} are allowed");
            self.report
                .error(&message.at_of("body"), text)
                .hint("raise `max_direct_response_body_size_bytes` of the route configuration");
        }
        let status = message.uint("status").unwrap_or(200);
        DirectResponse { status: u16::try_from(status).unwrap_or(200), body }
    }
}
