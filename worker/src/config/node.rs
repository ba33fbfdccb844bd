//! What this program says of itself (`envoy.config.core.v3.Node`).

/// Envoy's `config.core.v3.Node`, as far as it is shown by the admin interface and access logs.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// `id`.
    pub id: String,
    /// `cluster`.
    pub cluster: String,
    /// `locality.zone`.
    pub zone: String,
}
