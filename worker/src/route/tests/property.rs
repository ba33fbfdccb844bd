//! The indexes give the answer of walking the list, for any list, any path and any host.

use std::{collections::BTreeSet, sync::Arc};

use proptest::prelude::*;
use regex::bytes::Regex;

use super::{super::*, Case, table};
use crate::{
    config::{
        matcher::{HeaderCondition, HeaderMatcher},
        route::{PathMatcher, RouteConfiguration, VirtualHost},
    },
    http::head::RequestHead,
};

/// Few letters, so that paths share prefixes and collide.
fn path() -> impl Strategy<Value = String> {
    "(/[aAb]{0,2}){1,4}"
}

fn matcher() -> impl Strategy<Value = (PathMatcher, bool, bool)> {
    let kind = prop_oneof![
        path().prop_map(PathMatcher::Prefix),
        path().prop_map(PathMatcher::Exact),
        path().prop_map(PathMatcher::SeparatedPrefix),
        path().prop_map(|path| PathMatcher::Regex(Regex::new(&format!("^{path}.?$")).unwrap())),
        Just(PathMatcher::Connect),
    ];
    (kind, prop::bool::weighted(0.8), prop::bool::weighted(0.3))
}

/// Names, and wildcards in front and behind, each in any case.
fn domains() -> impl Strategy<Value = BTreeSet<String>> {
    let name = "[abA.]{1,5}";
    let one = prop_oneof![
        name.prop_map(|name: String| name),
        name.prop_map(|name| format!("*{name}")),
        name.prop_map(|name| format!("{name}*")),
        Just("*".to_owned()),
    ];
    prop::collection::btree_set(one.prop_map(|domain| domain.to_ascii_lowercase()), 0..40)
}

/// The domain an authority belongs to: the name, the longest `*.suffix`, the longest `prefix.*`, `*`.
fn walk_domains<'d>(domains: &'d BTreeSet<String>, authority: &str) -> Option<&'d String> {
    let authority = authority.to_ascii_lowercase();
    let is_longer = |part: &str| !part.is_empty() && part.len() < authority.len();
    let suffix = |domain: &&String| {
        let part = domain.strip_prefix('*').unwrap_or_default();
        is_longer(part) && authority.ends_with(part)
    };
    let prefix = |domain: &&String| {
        let part = domain.strip_suffix('*').unwrap_or_default();
        is_longer(part) && authority.starts_with(part)
    };
    domains
        .get(&authority)
        .or_else(|| domains.iter().filter(suffix).max_by_key(|domain| domain.len()))
        .or_else(|| domains.iter().filter(prefix).max_by_key(|domain| domain.len()))
        .or_else(|| domains.get("*"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_virtual_host_is_the_one_of_the_most_specific_domain(
        domains in domains(),
        authorities in prop::collection::vec("[abAB.]{1,6}", 1..20),
    ) {
        let hosts = domains.iter().map(|domain| VirtualHost {
            domains: vec![domain.clone()],
            routes: vec![Arc::new(Case::route(domain.clone()))],
            ..VirtualHost::default()
        });
        let table =
            table(RouteConfiguration { virtual_hosts: hosts.collect(), ..Default::default() });
        for authority in authorities {
            let head = RequestHead {
                method: b"GET".into(),
                path: b"/".into(),
                authority: authority.as_bytes().into(),
                ..RequestHead::default()
            };
            let found = match table.find(&head, 0) {
                Found::Route(found) => Some(found.route_name.to_string()),
                Found::RequireTls | Found::NoRoute => None,
            };
            prop_assert_eq!(found.as_ref(), walk_domains(&domains, &authority));
        }
    }

    #[test]
    fn the_index_finds_the_first_match_of_the_list(
        matchers in prop::collection::vec(matcher(), 0..60),
        requests in prop::collection::vec((path(), any::<bool>(), any::<bool>()), 1..20),
    ) {
        let routes: Vec<_> = matchers
            .into_iter()
            .enumerate()
            .map(|(at, (path, case_sensitive, wants_header))| {
                let mut route = Case::route(at.to_string());
                route.matches.path = path;
                route.matches.case_sensitive = case_sensitive;
                if wants_header {
                    route.matches.headers.push(HeaderMatcher {
                        name: "x".to_owned(),
                        condition: HeaderCondition::Present(true),
                        invert: false,
                        missing_as_empty: false,
                    });
                }
                Arc::new(route)
            })
            .collect();
        let host = VirtualHost {
            domains: vec!["*".to_owned()],
            routes: routes.clone(),
            ..VirtualHost::default()
        };
        let table =
            table(RouteConfiguration { virtual_hosts: vec![host], ..Default::default() });
        for (path, header, query) in requests {
            let mut head = RequestHead {
                method: b"GET".into(),
                path: if query { format!("{path}?/a") } else { path }.into(),
                ..RequestHead::default()
            };
            if header {
                head.headers.append(b"x", b"1");
            }
            let naive = routes.iter().find(|route| matcher::matches(&route.matches, &head, 0));
            let found = match table.find(&head, 0) {
                Found::Route(found) => Some(found.route_name.to_string()),
                Found::RequireTls | Found::NoRoute => None,
            };
            prop_assert_eq!(found, naive.map(|route| route.name.clone()));
        }
    }
}
