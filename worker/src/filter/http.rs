//! HTTP filters: the trait, and the ones there are.

use std::{fmt::Debug, rc::Rc};

use crate::{
    config::hcm::HttpFilter as Config,
    drain::DrainHandle,
    http::{
        head::{RequestHead, ResponseHead},
        local_reply::LocalReply,
        stream_info::StreamInfo,
    },
};

pub mod health_check;
pub mod router;

/// What a filter thinks of a request.
#[derive(Debug)]
pub enum Verdict {
    /// The next filter is asked.
    Continue,
    /// This is the answer; no later filter sees the request.
    Reply(LocalReply),
}

/// A filter between the connection manager and the router. One object serves a thread.
///
/// Synchronous on purpose: a boxed future for each filter would cost more than routing. A filter
/// that has to wait will get a verdict of its own.
pub trait HttpFilter: Debug {
    /// A request head came; it may be changed.
    fn on_request(&self, request: &mut RequestHead, info: &mut StreamInfo) -> Verdict;

    /// A response head is about to be sent; it may be changed. Called in reverse order.
    fn on_response(&self, _response: &mut ResponseHead, _info: &mut StreamInfo) {}
}

/// The filters of a connection manager before the router.
#[derive(Clone, Debug, Default)]
pub struct HttpChain {
    filters: Rc<[Box<dyn HttpFilter>]>,
}

impl HttpChain {
    /// Makes the filters of a configuration run. The router is the terminal one and not in here.
    pub fn new(configs: &[Config], drain: &DrainHandle) -> Self {
        let mut filters: Vec<Box<dyn HttpFilter>> = Vec::new();
        for config in configs {
            match config {
                Config::Router { .. } => {}
                Config::HealthCheck { headers } => {
                    filters.push(Box::new(health_check::HealthCheck::new(headers.clone(), drain)));
                }
            }
        }
        Self { filters: filters.into() }
    }

    /// Asks every filter in order until one answers.
    pub fn on_request(&self, request: &mut RequestHead, info: &mut StreamInfo) -> Verdict {
        for filter in &*self.filters {
            if let Verdict::Reply(reply) = filter.on_request(request, info) {
                return Verdict::Reply(reply);
            }
        }
        Verdict::Continue
    }

    /// Shows a response to every filter, last one first.
    pub fn on_response(&self, response: &mut ResponseHead, info: &mut StreamInfo) {
        for filter in self.filters.iter().rev() {
            filter.on_response(response, info);
        }
    }
}
