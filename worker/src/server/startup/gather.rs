//! What a generation begins with beside its configuration file: the resources that come from files.

use std::{fs::File, path::PathBuf, sync::Arc, time::Duration};

use baton_contract::{
    memfd,
    message::{Config, MAX_RESOURCES_LEN, ToWorker, Warm, WorkerSettings},
};

use super::{
    super::{resources::Resources, threads::Update},
    CONFIG_MAX, StartError, load_options, next,
};
use crate::{
    config::{load::Source, model::Bootstrap},
    handoff::Link,
    migrate::ConfigSource,
};

/// The configuration with the resources a generation begins with.
pub(super) fn first_edition(
    resources: &mut Resources,
    source: &Arc<ConfigSource>,
) -> Result<Arc<ConfigSource>, StartError> {
    if !resources.are_any() {
        return Ok(Arc::clone(source));
    }
    let kept = resources.next_edition(source);
    kept.map_err(|error| StartError::internal(format!("cannot keep the resources: {error}")))
}

/// What the threads do not have from the configuration itself.
pub(super) fn first_update(resources: &mut Resources, edition: &Arc<ConfigSource>) -> Arc<Update> {
    Arc::new(Update {
        source: Arc::clone(edition),
        listeners: Vec::new(),
        farewell: Duration::ZERO,
        routes: resources.table_changes(),
        shows_upstream_local: resources.shows_upstream_local(),
    })
}

/// What an older generation accepted. Without it all is read from the files.
async fn receive_resources(link: &mut Link) -> Result<Option<Vec<u8>>, StartError> {
    let mut received = next(link).await?;
    let (ToWorker::Resources(_), Some(file)) = (received.message, received.fds.pop()) else {
        link.nack(received.seq, "RESOURCES was announced")?;
        return Ok(None);
    };
    let bytes = memfd::read(&File::from(file), MAX_RESOURCES_LEN);
    let told = |error| tracing::warn!(%error, "resources of another generation cannot be read");
    Ok(bytes.map_err(told).ok())
}

/// The resources that come from files: what an older generation accepted, and what is there now.
pub(super) async fn gather(
    link: &mut Link,
    bootstrap: &Arc<Bootstrap>,
    (config, source): (&Config, &ConfigSource),
    settings: &WorkerSettings,
) -> Result<Resources, StartError> {
    let inherited = if config.resources { receive_resources(link).await? } else { None };
    let file = File::from(
        source
            .file
            .try_clone()
            .map_err(|error| StartError::internal(format!("no descriptor is left: {error}")))?,
    );
    let bytes = memfd::read(&file, CONFIG_MAX).map_err(|error| {
        StartError::internal(format!("cannot read the configuration that was handed over: {error}"))
    })?;
    let file = Source { path: PathBuf::from(&source.path), bytes };
    let mut resources = Resources::new(bootstrap, load_options(settings), file);
    resources.open(inherited.as_deref());
    settle(&mut resources, link).await?;
    Ok(resources)
}

/// Waits until nothing is missing, or was waited for long enough.
async fn settle(resources: &mut Resources, link: &mut Link) -> Result<(), StartError> {
    let mut told = false;
    while let Some(path) = resources.missing() {
        if !told {
            link.send(Warm { text: format!("waiting for resources in {path}") })?;
            told = true;
        }
        tokio::select! {
            event = resources.event() => {
                resources.take(event, None);
            }
            received = next(link) => {
                let seq = received?.seq;
                link.nack(seq, "not ready yet")?;
            }
        }
    }
    Ok(())
}
