//! The resolver against a DNS server of the test's own, over UDP on the loopback interface.

use std::{
    net::Ipv6Addr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, rdata},
};
use tokio::net::UdpSocket;

use super::*;

/// Answers for `<anything>.both.test` with A and AAAA, `four.test` with A only, nothing else.
async fn serve(socket: UdpSocket, queries: Arc<AtomicU64>) {
    let mut buffer = [0; 1500];
    loop {
        let (count, peer) = socket.recv_from(&mut buffer).await.unwrap();
        queries.fetch_add(1, Relaxed);
        let answer = answer(&buffer[..count]);
        socket.send_to(&answer, peer).await.unwrap();
    }
}

fn answer(query: &[u8]) -> Vec<u8> {
    let query = Message::from_vec(query).unwrap();
    let question = query.queries[0].clone();
    let name: Name = question.name().clone();
    let text = name.to_ascii().to_lowercase();
    let both = text.ends_with("both.test.");
    let mut message = Message::response(query.metadata.id, query.metadata.op_code);
    message.metadata.recursion_desired = query.metadata.recursion_desired;
    message.metadata.recursion_available = true;
    let wanted = question.query_type();
    let data = if wanted == RecordType::A && (both || text == "four.test.") {
        Some(RData::A(rdata::A(Ipv4Addr::new(10, 1, 2, 3))))
    } else if wanted == RecordType::AAAA && both {
        Some(RData::AAAA(rdata::AAAA(Ipv6Addr::LOCALHOST)))
    } else {
        None
    };
    message.add_query(question);
    match data {
        Some(data) => {
            message.add_answer(Record::from_rdata(name, 42, data));
        }
        None if text == "four.test." => {}
        None => message.metadata.response_code = ResponseCode::NXDomain,
    }
    message.to_vec().unwrap()
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn with_server<F: Future<Output = ()>>(
    hosts: &str,
    test: impl FnOnce(ServerResolver, Arc<AtomicU64>) -> F,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let queries = Arc::new(AtomicU64::new(0));
        let server = tokio::spawn(serve(socket, Arc::clone(&queries)));
        let resolver = ServerResolver::new(&[address], hosts.as_bytes()).unwrap();
        test(resolver, queries).await;
        server.abort();
    });
}

#[test]
fn each_family_gets_what_it_asks_for() {
    with_server("", async |resolver, _| {
        for (family, expected) in [
            (DnsFamily::V4Only, vec![V4]),
            (DnsFamily::V6Only, vec![V6]),
            (DnsFamily::Auto, vec![V6]),
            (DnsFamily::V4Preferred, vec![V4]),
            (DnsFamily::All, vec![V4, V6]),
        ] {
            let answer = resolver.resolve("both.test", family).await.unwrap();
            assert_eq!(answer.addresses, expected, "{family:?}");
            assert_eq!(answer.ttl, Duration::from_secs(42));
        }
        for family in [DnsFamily::Auto, DnsFamily::All, DnsFamily::V4Preferred] {
            let answer = resolver.resolve("four.test", family).await.unwrap();
            assert_eq!(answer.addresses, [V4], "{family:?}");
        }
    });
}

#[test]
fn a_missing_name_and_a_missing_family_are_no_address() {
    with_server("", async |resolver, _| {
        for (name, family) in [("none.test", DnsFamily::Auto), ("four.test", DnsFamily::V6Only)] {
            let error = resolver.resolve(name, family).await.unwrap_err();
            assert!(matches!(error, ResolveError::NoAddress(_)), "{error}");
        }
    });
}

#[test]
fn every_refresh_asks_the_server() {
    with_server("", async |resolver, queries| {
        for _ in 0..3 {
            resolver.resolve("four.test", DnsFamily::V4Only).await.unwrap();
        }
        assert_eq!(queries.load(Relaxed), 3);
    });
}

#[test]
fn the_hosts_file_comes_first() {
    let hosts = "# comment\n10.9.9.9 Local.Test alias.test # more\n::2 local.test\n";
    with_server(hosts, async |resolver, queries| {
        let v4: IpAddr = "10.9.9.9".parse().unwrap();
        for name in ["local.test", "alias.test"] {
            let answer = resolver.resolve(name, DnsFamily::V4Only).await.unwrap();
            assert_eq!(answer.addresses, [v4]);
        }
        let all = resolver.resolve("local.test", DnsFamily::All).await.unwrap();
        assert_eq!(all.addresses, [v4, "::2".parse().unwrap()]);
        assert_eq!(queries.load(Relaxed), 0);
    });
}

#[test]
fn localhost_resolves_as_on_any_system() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let resolver = SystemResolver::default();
        let answer = resolver.resolve("localhost", DnsFamily::V4Only).await.unwrap();
        assert!(answer.addresses.contains(&Ipv4Addr::LOCALHOST.into()), "{answer:?}");
    });
}
