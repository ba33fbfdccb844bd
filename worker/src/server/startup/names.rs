//! Names are resolved before a generation is ready.

use std::{sync::Arc, time::Duration};

use baton_contract::{
    message::{ADDRESSES_FEATURE, Addresses, Resolved, Warm, Welcome},
    words::counted,
};

use super::{StartError, next};
use crate::{
    cluster::{ClusterManager, Wait},
    handoff::{Link, LinkError},
};

/// What came of it.
pub(super) struct Resolution {
    /// A line for each name that goes on with what older generations knew, and for each cluster that has
    /// no address, as before.
    pub(super) warnings: Vec<String>,
    /// A line for each other cluster without any address.
    pub(super) missing: Vec<String>,
}

/// Waits for the first answers of DNS. `alone` = nothing is served meanwhile.
pub(super) async fn warm(
    link: &mut Link,
    clusters: &Arc<ClusterManager>,
    (welcome, alone): (&Welcome, bool),
) -> Result<Resolution, StartError> {
    let table = clusters.table();
    let names = table.iter().filter(|c| c.config.discovery.resolves_names()).count();
    if names > 0 {
        let text = format!("resolving the names of {}", counted(names, "cluster"));
        link.send(Warm { text })?;
    }
    let wait = if alone { Wait::FirstResult } else { Wait::Address };
    let timeout = Duration::from_millis(welcome.settings.warm_timeout_ms);
    let warming = clusters.warm(timeout, wait);
    tokio::pin!(warming);
    loop {
        tokio::select! {
            () = &mut warming => break,
            received = next(link) => {
                let seq = received?.seq;
                link.nack(seq, "not ready yet")?;
            }
        }
    }
    let mut warnings = clusters.inherited();
    warnings.extend(clusters.still_missing());
    let resolution = Resolution { warnings, missing: clusters.missing() };
    // The supervisor says the others, as it does with all warnings of a new generation.
    for line in &resolution.missing {
        tracing::warn!("{line}");
    }
    let mut news = clusters.take_news();
    // It does not serve without them yet, and may never do.
    news.retain(|answer| !answer.addresses.is_empty());
    tell(link, news, &welcome.features)?;
    Ok(resolution)
}

/// Tells the supervisor what names resolve to.
///
/// # Errors
/// When the channel fails.
pub(in super::super) fn tell(
    link: &mut Link,
    news: Vec<Resolved>,
    features: &[String],
) -> Result<(), LinkError> {
    if !features.iter().any(|name| name == ADDRESSES_FEATURE) {
        return Ok(());
    }
    for message in Addresses::messages(news) {
        link.send(message)?;
    }
    Ok(())
}
