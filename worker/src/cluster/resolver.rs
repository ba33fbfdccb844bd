//! Turns names into addresses. [`Resolve`] is the seam: the manager uses whatever is behind it.

#[cfg(test)]
mod tests;

use std::{
    fmt, fs,
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use hickory_resolver::{
    Hosts, Resolver, ResolverBuilder, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RecordType,
};

use crate::config::cluster::DnsFamily;

/// Why a name could not be resolved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The servers say that the name has no address of the wanted family.
    #[error("`{0}` has no address")]
    NoAddress(String),
    /// No server answered, or the answer was an error.
    #[error("cannot resolve `{name}`: {reason}")]
    Failed {
        /// The name asked for.
        name: String,
        /// What the resolver says.
        reason: String,
    },
}

/// What a name resolved to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// At least one address, in the order of the answer.
    pub addresses: Vec<IpAddr>,
    /// How long the answer may be used.
    pub ttl: Duration,
}

/// The future of a query.
pub type Query<'a> = Pin<Box<dyn Future<Output = Result<Answer, ResolveError>> + Send + 'a>>;

/// A source of addresses.
pub trait Resolve: fmt::Debug + Send + Sync {
    /// Asks for the addresses of `name`.
    fn resolve<'a>(&'a self, name: &'a str, family: DnsFamily) -> Query<'a>;
}

/// Resolves as the system is set up to: `/etc/hosts` first, then the servers of
/// `/etc/resolv.conf`. Both files are read when the first name is asked for, and again after they
/// changed, so a configuration without names never depends on them.
#[derive(Default)]
pub struct SystemResolver {
    current: Mutex<Option<(Stamp, TokioResolver)>>,
}

/// When the system's files were changed last.
type Stamp = [Option<SystemTime>; 2];

/// Debug builds only: as long as this file exists it has all names there are, in the format of
/// `/etc/hosts`.
const TEST_HOSTS: &str = "BATON_TEST_HOSTS";
/// The files [`SystemResolver`] follows.
const FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

impl fmt::Debug for SystemResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SystemResolver").finish_non_exhaustive()
    }
}

impl SystemResolver {
    fn current(&self) -> Result<TokioResolver, NetError> {
        let stamp = FILES.map(|file| fs::metadata(file).and_then(|file| file.modified()).ok());
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some((made, resolver)) if *made == stamp => Ok(resolver.clone()),
            _ => {
                let builder = Resolver::builder_tokio().unwrap_or_else(|error| {
                    tracing::warn!(%error, "cannot use /etc/resolv.conf, asking 127.0.0.1");
                    local_server()
                });
                let resolver = build(builder)?;
                *current = Some((stamp, resolver.clone()));
                Ok(resolver)
            }
        }
    }
}

impl Resolve for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str, family: DnsFamily) -> Query<'a> {
        Box::pin(async move {
            if let Some(answer) = of_test(name) {
                return answer;
            }
            let resolver = self.current().map_err(|error| failed(name, &error))?;
            ask(&resolver, name, family).await
        })
    }
}

/// What the file of [`TEST_HOSTS`] says, if there is one.
fn of_test(name: &str) -> Option<Result<Answer, ResolveError>> {
    let file = if cfg!(debug_assertions) { std::env::var_os(TEST_HOSTS) } else { None };
    let text = fs::read_to_string(file?).ok()?;
    let address = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word == name).then_some(address)
    };
    let addresses: Vec<IpAddr> = text.lines().filter_map(address).collect();
    if addresses.is_empty() {
        return Some(Err(ResolveError::NoAddress(name.to_owned())));
    }
    Some(Ok(Answer { addresses, ttl: Duration::from_secs(1) }))
}

/// Resolves with a given set of servers, for tests and for a later `dns_resolvers`.
pub struct ServerResolver(TokioResolver);

impl fmt::Debug for ServerResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerResolver").finish_non_exhaustive()
    }
}

impl ServerResolver {
    /// Asks these servers by UDP, after `hosts` in the format of `/etc/hosts`.
    ///
    /// # Errors
    /// When the resolver cannot be made or `hosts` cannot be read.
    pub fn new(servers: &[SocketAddr], hosts: &[u8]) -> Result<Self, ResolveError> {
        let servers = servers.iter().map(|server| {
            let mut udp = ConnectionConfig::udp();
            udp.port = server.port();
            NameServerConfig::new(server.ip(), true, vec![udp])
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
        let mut resolver = build(builder).map_err(|error| failed("", &error))?;
        let mut table = Hosts::default();
        table.read_hosts_conf(hosts).map_err(|error| failed("", &error))?;
        resolver.set_hosts(Arc::new(table));
        Ok(Self(resolver))
    }
}

impl Resolve for ServerResolver {
    fn resolve<'a>(&'a self, name: &'a str, family: DnsFamily) -> Query<'a> {
        Box::pin(ask(&self.0, name, family))
    }
}

fn build(mut builder: ResolverBuilder<TokioRuntimeProvider>) -> Result<TokioResolver, NetError> {
    let options = builder.options_mut();
    // The manager decides when to ask again; a cache below it would only add to that.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Always;
    builder.build()
}

/// What the C library does when no server is configured.
fn local_server() -> ResolverBuilder<TokioRuntimeProvider> {
    let server = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
    let config = ResolverConfig::from_name_servers(vec![server]);
    Resolver::builder_with_config(config, TokioRuntimeProvider::default())
}

fn failed(name: &str, error: &dyn fmt::Display) -> ResolveError {
    ResolveError::Failed { name: name.to_owned(), reason: error.to_string() }
}

/// Asks for the families that are wanted, both at the same time if there are two.
async fn ask(
    resolver: &TokioResolver,
    name: &str,
    family: DnsFamily,
) -> Result<Answer, ResolveError> {
    let v4 = || lookup(resolver, name, RecordType::A);
    let v6 = || lookup(resolver, name, RecordType::AAAA);
    match family {
        DnsFamily::V4Only => v4().await,
        DnsFamily::V6Only => v6().await,
        DnsFamily::Auto => {
            let (v6, v4) = tokio::join!(v6(), v4());
            v6.or(v4)
        }
        DnsFamily::V4Preferred => {
            let (v6, v4) = tokio::join!(v6(), v4());
            v4.or(v6)
        }
        DnsFamily::All => match tokio::join!(v4(), v6()) {
            (Ok(mut both), Ok(v6)) => {
                both.addresses.extend(v6.addresses);
                both.ttl = both.ttl.min(v6.ttl);
                Ok(both)
            }
            (v4, v6) => v4.or(v6),
        },
    }
}

async fn lookup(
    resolver: &TokioResolver,
    name: &str,
    record: RecordType,
) -> Result<Answer, ResolveError> {
    let answer = resolver.lookup(name, record).await.map_err(|error| {
        if error.is_no_records_found() {
            ResolveError::NoAddress(name.to_owned())
        } else {
            failed(name, &error)
        }
    })?;
    let records = answer.answers();
    let addresses: Vec<IpAddr> =
        records.iter().filter_map(|record| record.data.ip_addr()).take(MAX_ADDRESSES).collect();
    if addresses.is_empty() {
        return Err(ResolveError::NoAddress(name.to_owned()));
    }
    let ttl = records.iter().map(|record| record.ttl).min().unwrap_or_default();
    Ok(Answer { addresses, ttl: Duration::from_secs(u64::from(ttl)) })
}

/// Most addresses taken from one answer; a larger one is an attack or a mistake.
const MAX_ADDRESSES: usize = 1024;
