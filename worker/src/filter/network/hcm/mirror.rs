//! Copies of requests for other clusters (`request_mirror_policies`). They are sent when the request is whole,
//! and nobody waits for their answers.

use std::{net::IpAddr, rc::Rc};

use super::{
    client::{self, Request},
    downstream::Downstream,
    exchange::Exchange,
};
use crate::{
    config::route::{MirrorPolicy, MirrorTarget},
    http::head::RequestHead,
    thread::{Thread, ThreadCluster},
};

/// A copy that will be sent.
#[derive(Debug)]
pub(super) struct Mirror {
    cluster: Rc<ThreadCluster>,
    head: RequestHead,
}

impl Exchange {
    /// Decides who gets a copy of the request. The head is as it goes to the cluster of the route.
    pub(super) fn begin_mirrors(&mut self, down: &Downstream) {
        // A change of protocol is for one endpoint.
        let Some(target) = self.target.as_ref().filter(|_| self.upgrade.is_none()) else { return };
        let Some(action) = target.action().filter(|action| !action.mirrors.is_empty()) else {
            return;
        };
        let thread = &down.hcm.thread;
        for policy in &action.mirrors {
            let random = thread.random.borrow_mut().u32(..1_000_000);
            if policy.fraction_ppm.is_some_and(|part| random >= part) {
                continue;
            }
            let Some(cluster) = cluster(thread, policy, &self.request) else { continue };
            let mut head = self.request.clone();
            rewrite(&mut head, policy, down.info.local.map(|local| local.ip()));
            self.mirrors.push(Mirror { cluster, head });
        }
        if !self.mirrors.is_empty() {
            self.retain_up_to(down.buffer_limit_bytes);
        }
    }

    /// The request is whole: the copies go.
    pub(super) fn send_mirrors(&mut self, down: &Downstream) {
        let Some(retained) = self.retained.as_ref().filter(|_| !self.mirrors.is_empty()) else {
            return;
        };
        let timeout = self.target.as_ref().and_then(|target| target.timeout);
        for Mirror { cluster, head } in self.mirrors.drain(..) {
            let body = retained.encode(self.request_chunked, true);
            let request = Request { head, framing: self.framing, body };
            let thread = Rc::clone(&down.hcm.thread);
            tokio::task::spawn_local(async move {
                if let Err(error) = client::call(&thread, &cluster, &request, timeout).await {
                    tracing::debug!(cluster = &*cluster.name, %error, "a copy of a request got no answer");
                }
            });
        }
    }
}

/// Where the copy goes; a cluster that is not there gets none.
fn cluster(
    thread: &Thread,
    policy: &MirrorPolicy,
    request: &RequestHead,
) -> Option<Rc<ThreadCluster>> {
    match &policy.target {
        MirrorTarget::Cluster(index) => thread.cluster(*index),
        MirrorTarget::Header(name) => {
            thread.cluster_by_name(std::str::from_utf8(request.get(name.as_bytes())?).ok()?)
        }
    }
}

/// A copy says that it is one, as Envoy's do: by its host, and as a request from inside.
fn rewrite(head: &mut RequestHead, policy: &MirrorPolicy, own: Option<IpAddr>) {
    match &policy.host {
        Some(host) => head.authority = host.as_bytes().to_vec(),
        None if policy.keep_host => {}
        None => {
            let authority = &mut head.authority;
            let end = memchr::memchr(b':', authority).unwrap_or(authority.len());
            authority.splice(end..end, *b"-shadow");
        }
    }
    head.headers.set(b"x-envoy-internal", b"true");
    if let Some(own) = own {
        let own = own.to_string();
        head.headers.append(b"x-forwarded-for", own.as_bytes());
        head.headers.join(b"x-forwarded-for");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_says_that_it_is_one() {
        let host = |keep_host, host: Option<&str>, asked: &str| {
            let policy = MirrorPolicy {
                target: MirrorTarget::Header(String::new()),
                fraction_ppm: None,
                keep_host,
                host: host.map(str::to_owned),
            };
            let mut head = RequestHead { authority: asked.into(), ..RequestHead::default() };
            head.headers.append(b"x-forwarded-for", b"1.2.3.4");
            rewrite(&mut head, &policy, Some([10, 0, 0, 1].into()));
            assert_eq!(head.get(b"x-envoy-internal"), Some(&b"true"[..]));
            assert_eq!(head.get(b"x-forwarded-for"), Some(&b"1.2.3.4,10.0.0.1"[..]));
            String::from_utf8(head.authority).unwrap()
        };
        assert_eq!(host(false, None, "a.example"), "a.example-shadow");
        assert_eq!(host(false, None, "a.example:8080"), "a.example-shadow:8080");
        assert_eq!(host(true, None, "a.example"), "a.example");
        assert_eq!(host(false, Some("b.example"), "a.example"), "b.example");
    }
}
