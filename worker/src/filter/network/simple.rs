//! `echo` and `direct_response`: terminal filters without an upstream.

use std::{rc::Rc, sync::Arc};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    filter::network::{NetworkFilter, NewConnection, Serving},
    stats::EndReason,
};

/// Bytes read at once by the echo filter.
const ECHO_BYTES: usize = 16 * 1024;

/// `envoy.filters.network.echo`.
#[derive(Debug)]
pub struct Echo;

impl NetworkFilter for Echo {
    fn serve(self: Rc<Self>, mut connection: NewConnection) -> Serving {
        Box::pin(async move {
            let mut buffer = vec![0; ECHO_BYTES];
            while let Ok(count) = connection.stream.read(&mut buffer).await {
                let data = buffer.get(..count).unwrap_or_default();
                if data.is_empty() || connection.stream.write_all(data).await.is_err() {
                    break;
                }
            }
            EndReason::Client.into()
        })
    }
}

/// `envoy.filters.network.direct_response`.
#[derive(Debug)]
pub struct DirectResponse(pub Arc<[u8]>);

impl NetworkFilter for DirectResponse {
    fn serve(self: Rc<Self>, mut connection: NewConnection) -> Serving {
        Box::pin(async move {
            if connection.stream.write_all(&self.0).await.is_ok()
                && connection.stream.shutdown().await.is_ok()
            {
                // Wait for the client's end, so that nothing it sent turns our answer into a reset.
                let mut rest = [0; 512];
                while matches!(connection.stream.read(&mut rest).await, Ok(count) if count > 0) {}
            }
            EndReason::Client.into()
        })
    }
}
