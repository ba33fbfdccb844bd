//! Clusters as routes and filters name them.

/// The number of a cluster's name in [`ClusterNames`](super::names::ClusterNames). There need not be a cluster of that name.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ClusterIndex(pub usize);

/// One entry of a list of weighted clusters.
#[derive(Clone, Debug)]
pub struct WeightedTarget {
    /// The cluster.
    pub cluster: ClusterIndex,
    /// Share of the total weight. At least one entry of a list is above 0.
    pub weight: u32,
}
