//! The endpoints of all clusters as they are used now: `/config_dump?include_eds`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{AdminContext, clusters, config_sections as sections};
use crate::{
    cluster::{ClusterState, Endpoint},
    config::cluster::Discovery,
};

/// Envoy's default of `overprovisioning_factor`, percent.
const OVERPROVISIONING: u32 = 140;

/// The section. As in Envoy endpoints are static when their cluster stands in the configuration.
pub(super) fn section(context: &AdminContext) -> Value {
    let known = context.static_clusters();
    let (mut fixed, mut dynamic) = (Vec::new(), Vec::new());
    for cluster in context.clusters.table().iter() {
        let is_static = known.contains(cluster.config.name.as_str());
        let list = if is_static { &mut fixed } else { &mut dynamic };
        list.push(json!({ "endpoint_config": assignment(cluster) }));
    }
    let mut section = Map::new();
    section.insert("@type".into(), sections::type_url(sections::ENDPOINTS).into());
    for (name, list) in [("static_endpoint_configs", fixed), ("dynamic_endpoint_configs", dynamic)]
    {
        if !list.is_empty() {
            section.insert(name.into(), list.into());
        }
    }
    Value::Object(section)
}

fn assignment(cluster: &ClusterState) -> Value {
    let name = match &cluster.config.discovery {
        Discovery::Eds(source) => &*source.service_name,
        Discovery::Static | Discovery::StrictDns | Discovery::LogicalDns => &cluster.config.name,
    };
    let mut groups: BTreeMap<(u32, String), Vec<Value>> = BTreeMap::new();
    for it in &cluster.endpoints().endpoints {
        let key = (it.info.priority, it.info.zone.clone());
        groups.entry(key).or_default().push(endpoint(it));
    }
    let groups: Vec<_> = groups
        .into_iter()
        .map(|((priority, zone), endpoints)| {
            let locality = if zone.is_empty() { json!({}) } else { json!({ "zone": zone }) };
            let mut group = json!({
                "locality": locality,
                "lb_endpoints": endpoints,
                // As Envoy shows it where localities have no weights.
                "load_balancing_weight": 0,
            });
            if let (1.., Some(fields)) = (priority, group.as_object_mut()) {
                fields.insert("priority".into(), priority.into());
            }
            group
        })
        .collect();
    let mut object = Map::new();
    let ty = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    object.insert("@type".into(), ty.into());
    object.insert("cluster_name".into(), name.into());
    if !groups.is_empty() {
        object.insert("endpoints".into(), groups.into());
    }
    object.insert("policy".into(), json!({ "overprovisioning_factor": OVERPROVISIONING }));
    Value::Object(object)
}

fn endpoint(it: &Endpoint) -> Value {
    let mut endpoint = json!({
        "address": clusters::address(&it.address()),
        "health_check_config": {},
    });
    if let (false, Some(fields)) = (it.info.hostname.is_empty(), endpoint.as_object_mut()) {
        fields.insert("hostname".into(), it.info.hostname.as_str().into());
    }
    json!({
        "endpoint": endpoint,
        "health_status": "HEALTHY",
        "load_balancing_weight": it.info.weight,
    })
}
