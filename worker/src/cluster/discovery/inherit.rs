//! Addresses that go from one generation to the next, for the case that DNS fails just then.

use std::{collections::HashMap, net::IpAddr, sync::atomic::Ordering::Relaxed};

use baton_contract::message::Resolved;

use super::{Answer, Discovery, SHORTEST_REFRESH, Target};
use crate::config::cluster::DnsFamily;

/// Answers of older generations, by cluster and name.
pub(in super::super) type Known<'a> = HashMap<(&'a str, &'a str), &'a [IpAddr]>;

impl Target {
    /// The addresses it stands for.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let addresses = self.endpoints.iter().filter_map(|endpoint| endpoint.address().ip());
        addresses.map(|address| address.ip()).collect()
    }

    fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|(name, _)| name.as_str())
    }
}

impl Discovery {
    /// Begins with what older generations knew about the same names of the same cluster.
    pub(in super::super) fn inherit(&self, known: &Known<'_>) {
        let config = &self.cluster.config;
        let mut targets = self.lock();
        for target in targets.iter_mut().filter(|target| target.endpoints.is_empty()) {
            let Some((name, port)) = target.name.clone() else { continue };
            let Some(addresses) = known.get(&(config.name.as_str(), name.as_str())) else {
                continue;
            };
            target.lacking = addresses.is_empty();
            let addresses = addresses.iter().copied().filter(|ip| fits(config.dns_family, *ip));
            let answer = Answer { addresses: addresses.collect(), ttl: SHORTEST_REFRESH };
            target.accept(&config.discovery, &answer, port, &self.cluster.endpoints());
            target.inherited = !target.endpoints.is_empty();
        }
        if targets.iter().any(|target| target.inherited) {
            self.news.store(true, Relaxed);
            self.publish(&targets);
        }
    }

    /// What the supervisor was not told yet: all names of the cluster if any of them changed, without
    /// addresses those that have none.
    pub(in super::super) fn take_news(&self) -> Vec<Resolved> {
        if !self.news.load(Relaxed) || !self.news.swap(false, Relaxed) {
            return Vec::new();
        }
        let resolved = |target: &Target| {
            let (cluster, addresses) = (self.cluster.config.name.clone(), target.addresses());
            let name = target.name()?.to_owned();
            Some(Resolved { cluster, name, addresses })
        };
        self.lock().iter().filter_map(resolved).collect()
    }

    /// Another supervisor was told nothing.
    pub(in super::super) fn tell_again(&self) {
        self.news.store(true, Relaxed);
    }

    /// What is served without an address is news, too.
    pub(in super::super) fn tell_lacks(&self) {
        if self.lock().iter().any(|target| target.name.is_some() && target.endpoints.is_empty()) {
            self.news.store(true, Relaxed);
        }
    }

    /// The generation that serves has no address for any of the names either, so nothing is lost
    /// without one.
    pub(super) fn lacks_as_before(&self) -> bool {
        self.lock().iter().all(|target| target.lacking || target.name.is_none())
    }

    /// A line for each name that goes on with what older generations knew.
    pub(in super::super) fn inherited(&self) -> Vec<String> {
        let line = |target: &Target| {
            let (name, cluster) = (target.name()?, &self.cluster.config.name);
            let why = reason(&target.error);
            let count = target.endpoints.len();
            Some(format!(
                "cluster `{cluster}`: `{name}` {why}; the last known addresses stay in use ({count})"
            ))
        };
        self.lock().iter().filter(|target| target.inherited).filter_map(line).collect()
    }

    /// What is to be said about a cluster without any address; not when that is as before.
    pub(in super::super) fn missing(&self) -> Option<String> {
        self.lack().filter(|_| !self.lacks_as_before())
    }

    /// What is to be said about a cluster that has no address, as before.
    pub(in super::super) fn still_missing(&self) -> Option<String> {
        self.lack().filter(|_| self.lacks_as_before())
    }

    fn lack(&self) -> Option<String> {
        if !self.is_empty() {
            return None;
        }
        let targets = self.lock();
        let target = targets.iter().find(|target| target.name.is_some())?;
        let (name, why) = (target.name()?, reason(&target.error));
        Some(format!("cluster `{}` has no address: `{name}` {why}", self.cluster.config.name))
    }
}

fn reason(error: &str) -> String {
    match error {
        "" => "does not answer in time".to_owned(),
        error => format!("does not resolve ({error})"),
    }
}

const fn fits(family: DnsFamily, address: IpAddr) -> bool {
    match family {
        DnsFamily::V4Only => address.is_ipv4(),
        DnsFamily::V6Only => address.is_ipv6(),
        DnsFamily::Auto | DnsFamily::V4Preferred | DnsFamily::All => true,
    }
}
