//! Further tries of requests, as their routes say.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use baton_worker::config::{
    hcm::HttpConnectionManager,
    retry::{AttemptHeaders, HedgePolicy, RetryOn, RetryOptions, RetryPolicy},
    route::Action,
};
use tokio::{
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
};

use super::{
    OK,
    harness::{self, Client, Proxy, Script},
    shown::{self, show},
};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy";

/// Tries at once, as often as it takes.
fn policy(retry_on: RetryOn) -> RetryPolicy {
    let mut policy = RetryPolicy { retry_on, num_retries: 3, ..RetryPolicy::default() };
    policy.back_off.base = Duration::from_millis(1);
    policy.back_off.max = Duration::from_millis(1);
    policy
}

fn retries(manager: &mut HttpConnectionManager, options: &RetryOptions) {
    show(manager, "x-flags", "%RESPONSE_FLAGS%");
    let routes = shown::table(manager);
    for route in routes.virtual_hosts.iter_mut().flat_map(|host| &mut host.routes) {
        if let Action::Forward(action) = &mut Arc::make_mut(route).action {
            action.retry = options.clone();
        }
    }
}

fn options(policy: RetryPolicy) -> RetryOptions {
    let tells =
        AttemptHeaders { count_in_request: true, count_in_response: true, timeout_retry: true };
    RetryOptions { policy: Some(Arc::new(policy)), tells, ..RetryOptions::default() }
}

async fn retrying(script: Script, policy: RetryPolicy) -> Proxy {
    let options = options(policy);
    Proxy::start_with(script, |manager| retries(manager, &options)).await
}

/// A proxy whose endpoint's ends of connections the test has.
async fn by_hand(options: RetryOptions) -> (Proxy, UnboundedReceiver<TcpStream>) {
    let (to, upstreams) = unbounded_channel();
    let start = Proxy::start_with(Script::ByHand(to), |manager| retries(manager, &options));
    (start.await, upstreams)
}

async fn accept(upstreams: &mut UnboundedReceiver<TcpStream>) -> Client {
    Client::from(upstreams.recv().await.unwrap())
}

/// Answers a list one after the other, then the last one for ever.
fn answers(list: &'static [&'static str]) -> Script {
    Script::new(move |number, _| list[number.min(list.len() - 1)].to_owned())
}

fn value<'h>(head: &'h str, name: &str) -> &'h str {
    let line = head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("no {name} in {head}"))
}

fn tries(proxy: &Proxy) -> usize {
    proxy.upstream_saw().matches(" HTTP/1.1\r\n").count()
}

#[test]
fn a_request_is_tried_until_there_is_a_good_answer() {
    harness::run(async {
        let proxy = retrying(answers(&[BUSY, BUSY, OK]), policy(RetryOn::GATEWAY_ERROR)).await;
        let mut client = proxy.connect().await;
        client.send(GET).await;
        let head = client.read_until("\r\n\r\nok").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(value(&head, "x-flags"), "-");
        assert_eq!(value(&head, "x-envoy-attempt-count"), "3");
        let saw = proxy.upstream_saw();
        let counts = saw.lines().filter_map(|line| line.strip_prefix("x-envoy-attempt-count: "));
        assert_eq!(counts.collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!(saw.matches("\r\nx-envoy-is-timeout-retry: false\r\n").count(), 2, "{saw}");
        client.send(GET).await;
        client.read_until("\r\n\r\nok").await;
        assert_eq!(tries(&proxy), 4);
    });
}

#[test]
fn the_last_answer_is_passed_on_when_no_try_is_left() {
    harness::run(async {
        let proxy = retrying(answers(&[BUSY]), policy(RetryOn::STATUS_5XX)).await;
        let mut client = proxy.connect().await;
        client.send(GET).await;
        let head = client.read_until("\r\n\r\nbusy").await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(value(&head, "x-flags"), "URX");
        assert_eq!(tries(&proxy), 4);
    });
}

#[test]
fn what_no_word_names_is_not_tried_again() {
    harness::run(async {
        const NOT_FOUND: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno";
        let words = RetryOn::STATUS_5XX | RetryOn::RETRIABLE_4XX | RetryOn::CONNECT_FAILURE;
        let proxy = retrying(answers(&[NOT_FOUND]), policy(words)).await;
        let mut client = proxy.connect().await;
        client.send(GET).await;
        let head = client.read_until("\r\n\r\nno").await;
        assert_eq!((value(&head, "x-flags"), tries(&proxy)), ("-", 1));
    });
}

#[test]
fn a_body_is_sent_again_as_it_was() {
    let cases = [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\nx-end: 1\r\n\r\n",
    ];
    for request in cases {
        harness::run(async {
            let proxy = retrying(answers(&[BUSY, OK]), policy(RetryOn::STATUS_5XX)).await;
            let mut client = proxy.connect().await;
            client.send(request).await;
            client.read_until("\r\n\r\nok").await;
            let saw = proxy.upstream_saw();
            let messages: Vec<_> = saw.split("POST ").skip(1).collect();
            let [first, second] = messages[..] else { panic!("{saw}") };
            let again = "attempt-count: 2\r\nx-envoy-is-timeout-retry: false";
            assert_eq!(
                without_time(&first.replace("attempt-count: 1", again)),
                without_time(second)
            );
        });
    }
}

/// A later try has less time than the first one.
fn without_time(message: &str) -> String {
    let lines = message.split_inclusive("\r\n");
    lines.filter(|line| !line.starts_with("x-envoy-expected-rq-timeout-ms: ")).collect()
}

#[test]
fn a_body_that_comes_slowly_is_sent_again_with_what_came_meanwhile() {
    harness::run(async {
        let (proxy, mut upstreams) = by_hand(options(policy(RetryOn::RESET))).await;
        let mut client = proxy.connect().await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nfirst").await;
        let mut upstream = accept(&mut upstreams).await;
        upstream.read_until("\r\n\r\nfirst").await;
        drop(upstream);
        let mut upstream = accept(&mut upstreams).await;
        upstream.read_until("\r\n\r\nfirst").await;
        client.send("last").await;
        upstream.read_until("last").await;
        drop(upstream);
        let mut upstream = accept(&mut upstreams).await;
        upstream.read_until("\r\n\r\nfirstlast").await;
        upstream.send(OK).await;
        client.read_until("\r\n\r\nok").await;
    });
}

#[test]
fn a_body_that_is_too_large_to_be_kept_is_sent_once() {
    let body = "x".repeat((1 << 20) + 1);
    let length = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    let chunks =
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for rest in [length, chunks] {
        harness::run(async {
            let proxy = retrying(answers(&[BUSY]), policy(RetryOn::STATUS_5XX)).await;
            let mut client = proxy.connect().await;
            client.send(&format!("POST / HTTP/1.1\r\nHost: a\r\n{rest}")).await;
            let head = client.read_until("\r\n\r\nbusy").await;
            assert_eq!((value(&head, "x-flags"), tries(&proxy)), ("-", 1));
        });
    }
}

#[test]
fn an_endpoint_that_refuses_is_tried_again_and_the_answer_says_so() {
    harness::run(async {
        let proxy = retrying(answers(&[OK]), policy(RetryOn::CONNECT_FAILURE)).await;
        let mut client = proxy.connect().await;
        client.send(&GET.replace("/ ", "/dead ")).await;
        let head = client.read_until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        assert_eq!(value(&head, "x-flags"), "URX,UF");
        assert_eq!(value(&head, "x-envoy-attempt-count"), "4");
    });
}

#[test]
fn a_try_that_takes_too_long_is_given_up() {
    harness::run(async {
        let mut policy = policy(RetryOn::GATEWAY_ERROR);
        policy.per_try_timeout = Some(Duration::from_millis(30));
        policy.num_retries = 1;
        let (proxy, mut upstreams) = by_hand(options(policy)).await;
        let mut client = proxy.connect().await;
        client.send(GET).await;
        let mut slow = accept(&mut upstreams).await;
        slow.read_until("\r\n\r\n").await;
        let mut quick = accept(&mut upstreams).await;
        let again = quick.read_until("\r\n\r\n").await;
        assert!(again.contains("\r\nx-envoy-is-timeout-retry: true\r\n"), "{again}");
        assert_eq!(slow.read_to_end().await, "", "the first is closed");
        let head = client.read_until("\r\n\r\nupstream request timeout").await;
        assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
        assert_eq!(value(&head, "x-flags"), "URX,UT");
    });
}

/// A first try that is over its time and a second one beside it.
async fn hedged() -> (Proxy, Client, [Client; 2]) {
    let mut policy = policy(RetryOn::GATEWAY_ERROR);
    policy.per_try_timeout = Some(Duration::from_millis(30));
    policy.num_retries = 1;
    let hedge = HedgePolicy { on_per_try_timeout: true };
    let (proxy, mut upstreams) = by_hand(RetryOptions { hedge, ..options(policy) }).await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut tries = Vec::new();
    for _ in 0..2 {
        let mut upstream = accept(&mut upstreams).await;
        upstream.read_until("\r\n\r\n").await;
        tries.push(upstream);
    }
    let Ok(tries) = tries.try_into() else { panic!("two") };
    (proxy, client, tries)
}

#[test]
fn of_two_tries_that_go_on_beside_each_other_the_first_good_answer_counts() {
    for winner in [0, 1] {
        harness::run(async {
            let (_proxy, mut client, mut tries) = hedged().await;
            tries[winner].send(OK).await;
            let head = client.read_until("\r\n\r\nok").await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            assert_eq!(tries[1 - winner].read_to_end().await, "", "the other is closed");
        });
    }
}

#[test]
fn a_bad_answer_counts_for_nothing_as_long_as_another_try_goes_on() {
    for bad in [0, 1] {
        for answer in [BUSY, ""] {
            harness::run(async {
                let (_proxy, mut client, mut tries) = hedged().await;
                if answer.is_empty() {
                    tries[bad].end().await;
                } else {
                    tries[bad].send(answer).await;
                }
                assert_eq!(tries[bad].read_to_end().await, "", "it is closed");
                tries[1 - bad].send(OK).await;
                let head = client.read_until("\r\n\r\nok").await;
                assert!(head.starts_with("HTTP/1.1 200 "), "{bad} {answer} {head}");
            });
        }
    }
}

#[test]
fn endpoints_that_were_tried_are_avoided() {
    harness::run(async {
        let mut policy = policy(RetryOn::STATUS_5XX);
        policy.avoid_previous_hosts = true;
        policy.host_selection_attempts = 20;
        policy.num_retries = 1;
        let (good, bad) = (endpoint(OK).await, endpoint(BUSY).await);
        let mut manager = harness::manager();
        retries(&mut manager, &options(policy));
        let proxy =
            Proxy::in_front_of(&[("", good), ("", bad)], std::rc::Rc::default(), manager).await;
        let mut client = proxy.connect().await;
        for _ in 0..20 {
            client.send(GET).await;
            client.read_until("\r\n\r\nok").await;
        }
    });
}

/// An endpoint that always answers the same.
async fn endpoint(answer: &'static str) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::task::spawn_local(async move {
                let mut client = Client::from(socket);
                loop {
                    client.read_until("\r\n\r\n").await;
                    client.send(answer).await;
                }
            });
        }
    });
    address
}
