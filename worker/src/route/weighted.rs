//! Which cluster a forwarding route sends a request to.

use crate::{
    config::{
        model::ClusterIndex,
        route::{ClusterTarget, RouteAction, WeightedCluster},
    },
    http::head::RequestHead,
};

/// A cluster and the entry of `weighted_clusters` it came from.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    /// The cluster.
    pub target: Target<'a>,
    /// The entry, whose header changes count too.
    pub weighted: Option<&'a WeightedCluster>,
}

/// A cluster, known or by name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target<'a> {
    /// A cluster of the configuration.
    Index(ClusterIndex),
    /// A name to look up; if there is no such cluster, `not_found_status` is the answer.
    Name(&'a [u8]),
}

/// Chooses the cluster; `random` decides between weighted ones. `None` when the header that
/// names the cluster is not there: the answer is `not_found_status` as well.
pub fn choose<'a>(
    action: &'a RouteAction,
    head: &'a RequestHead,
    random: u64,
) -> Option<Choice<'a>> {
    let only = |target| Some(Choice { target, weighted: None });
    match &action.target {
        ClusterTarget::Cluster(index) => only(Target::Index(*index)),
        ClusterTarget::Unknown(name) => only(Target::Name(name.as_bytes())),
        ClusterTarget::Header(name) => {
            only(Target::Name(head.get(name.as_bytes()).filter(|name| !name.is_empty())?))
        }
        ClusterTarget::Weighted(entries) => {
            let weighted = pick(entries, random)?;
            Some(Choice {
                target: Target::Index(weighted.target.cluster),
                weighted: Some(weighted),
            })
        }
    }
}

fn pick(entries: &[WeightedCluster], random: u64) -> Option<&WeightedCluster> {
    let total: u64 = entries.iter().map(|entry| u64::from(entry.target.weight)).sum();
    let mut left = random.checked_rem(total)?;
    entries.iter().find(|entry| {
        let weight = u64::from(entry.target.weight);
        let chosen = left < weight;
        left = left.saturating_sub(weight);
        chosen
    })
}
