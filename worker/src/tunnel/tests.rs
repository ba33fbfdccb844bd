//! Tunnels between real sockets on the loopback interface.

mod kept;
mod parts;
mod stuck;

use std::{future::poll_fn, time::Duration};

use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UnixStream},
};

use super::*;
use crate::clock;

/// Longest a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(30);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("in time") })
}

/// Two connected sockets.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (a, b) =
        tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (a.unwrap(), b.unwrap().0)
}

/// Polls a tunnel to its end and drops it, as the filters do.
async fn run(mut tunnel: Tunnel) -> TunnelEnd {
    run_to_end(&mut tunnel).await
}

async fn run_to_end(tunnel: &mut Tunnel) -> TunnelEnd {
    loop {
        let deadline = tunnel.deadline().unwrap_or_else(|| clock::now() + PATIENCE);
        let step = poll_fn(|cx| tunnel.poll(cx, clock::now()));
        if let Ok(end) = tokio::time::timeout_at(deadline.into(), step).await {
            return end;
        }
    }
}

fn limits(splice: Splice) -> Limits {
    Limits { idle_timeout: None, splice }
}

struct Rig {
    client: TcpStream,
    server: TcpStream,
    tunnel: Tunnel,
}

/// client ═ tunnel ═ server
async fn rig(limits: Limits) -> Rig {
    let (client, downstream) = pair().await;
    let (upstream, server) = pair().await;
    let tunnel =
        Tunnel::new((downstream.into(), b""), (upstream.into(), b""), limits, clock::now());
    Rig { client, server, tunnel }
}

/// Bytes that differ from place to place, so that lost, doubled and swapped ones are noticed.
fn pattern(from: usize, buffer: &mut [u8]) {
    for (at, byte) in buffer.iter_mut().enumerate() {
        let position = from + at;
        *byte = (position ^ (position >> 8) ^ (position >> 16)).to_le_bytes()[0];
    }
}

async fn send(mut stream: impl tokio::io::AsyncWrite + Unpin, total: usize) {
    let mut buffer = vec![0; 100_000];
    let mut sent = 0;
    while sent < total {
        let count = buffer.len().min(total - sent);
        pattern(sent, &mut buffer[..count]);
        stream.write_all(&buffer[..count]).await.unwrap();
        sent += count;
    }
    stream.shutdown().await.unwrap();
}

async fn check_received(mut stream: impl tokio::io::AsyncRead + Unpin, total: usize) {
    let (mut buffer, mut expected) = (vec![0; 100_000], vec![0; 100_000]);
    let mut received = 0;
    loop {
        let count = stream.read(&mut buffer).await.unwrap();
        if count == 0 {
            break;
        }
        pattern(received, &mut expected[..count]);
        assert!(buffer[..count] == expected[..count], "wrong bytes near {received}");
        received += count;
    }
    assert_eq!(received, total);
}

/// Moves 16 MiB each way at the same time and checks every byte.
fn bulk_both_ways(splice: Splice) {
    const TOTAL: usize = 16 * 1024 * 1024;
    block_on(async {
        let Rig { mut client, mut server, mut tunnel } = rig(limits(splice)).await;
        let (client_reads, client_writes) = client.split();
        let (server_reads, server_writes) = server.split();
        let (end, ..) = tokio::join!(
            run_to_end(&mut tunnel),
            send(client_writes, TOTAL),
            send(server_writes, TOTAL),
            check_received(client_reads, TOTAL),
            check_received(server_reads, TOTAL),
        );
        assert_eq!((end.bytes_downstream, end.bytes_upstream), (TOTAL as u64, TOTAL as u64));
        match splice {
            Splice::Auto => assert!(tunnel.bytes_spliced() >= TOTAL as u64, "{tunnel:?}"),
            Splice::Never => assert_eq!(tunnel.bytes_spliced(), 0),
        }
        assert!(matches!(end.cause, EndCause::Closed(_)), "{end:?}");
    });
}

#[test]
fn bulk_arrives_whole_both_ways_through_pipes() {
    bulk_both_ways(Splice::Auto);
}

#[test]
fn bulk_arrives_whole_both_ways_by_copying() {
    bulk_both_ways(Splice::Never);
}

#[test]
fn bulk_over_unix_sockets_falls_back_to_copying() {
    const TOTAL: usize = 4 * 1024 * 1024;
    block_on(async {
        let (client, downstream) = UnixStream::pair().unwrap();
        let (upstream, server) = pair().await;
        let ends = ((downstream.into(), &b""[..]), (upstream.into(), &b""[..]));
        let tunnel = Tunnel::new(ends.0, ends.1, limits(Splice::Auto), clock::now());
        let (client_reads, client_writes) = client.into_split();
        let (server_reads, server_writes) = server.into_split();
        let (end, ..) = tokio::join!(
            run(tunnel),
            send(client_writes, TOTAL),
            send(server_writes, TOTAL),
            check_received(client_reads, TOTAL),
            check_received(server_reads, TOTAL),
        );
        assert_eq!(end.bytes_downstream, TOTAL as u64);
    });
}

#[test]
fn bytes_read_before_the_tunnel_go_first() {
    block_on(async {
        let (mut client, downstream) = pair().await;
        let (upstream, mut server) = pair().await;
        let tunnel = Tunnel::new(
            (downstream.into(), b"early "),
            (upstream.into(), b"hello "),
            limits(Splice::Auto),
            clock::now(),
        );
        client.write_all(b"late").await.unwrap();
        server.write_all(b"world").await.unwrap();
        client.shutdown().await.unwrap();
        server.shutdown().await.unwrap();
        let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
        let (end, ..) = tokio::join!(
            run(tunnel),
            server.read_to_end(&mut at_server),
            client.read_to_end(&mut at_client),
        );
        assert_eq!((&*at_server, &*at_client), (&b"early late"[..], &b"hello world"[..]));
        assert_eq!((end.bytes_upstream, end.bytes_downstream), (10, 11));
    });
}

#[test]
fn a_client_that_ended_its_half_still_gets_the_answer() {
    block_on(async {
        let Rig { mut client, mut server, tunnel } = rig(limits(Splice::Auto)).await;
        let talk = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut question = Vec::new();
            server.read_to_end(&mut question).await.unwrap();
            assert_eq!(question, b"question");
            server.write_all(b"answer").await.unwrap();
            drop(server);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"answer");
        };
        let (end, ()) = tokio::join!(run(tunnel), talk);
        assert_eq!(end.cause, EndCause::Closed(Side::Downstream));
    });
}

#[test]
fn a_server_that_ended_its_half_still_hears_the_client() {
    block_on(async {
        let Rig { mut client, mut server, tunnel } = rig(limits(Splice::Auto)).await;
        let talk = async {
            server.shutdown().await.unwrap();
            assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
            client.write_all(b"still here").await.unwrap();
            drop(client);
            let mut heard = Vec::new();
            server.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"still here");
        };
        let (end, ()) = tokio::join!(run(tunnel), talk);
        assert_eq!(end.cause, EndCause::Closed(Side::Upstream));
    });
}

/// Makes the close of the stream a reset.
fn reset_on_close(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_reset_of_the_client_reaches_the_server_as_a_reset() {
    block_on(async {
        let Rig { client, mut server, tunnel } = rig(limits(Splice::Auto)).await;
        reset_on_close(&client);
        drop(client);
        let end = run(tunnel).await;
        assert_eq!(end.cause, EndCause::Reset(Side::Downstream));
        let error = server.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn what_the_server_sent_before_its_reset_is_delivered_before_the_reset() {
    block_on(async {
        let Rig { mut client, mut server, tunnel } = rig(limits(Splice::Auto)).await;
        // Unread data at close makes the kernel send a reset.
        client.write_all(b"never read").await.unwrap();
        server.readable().await.unwrap();
        server.write_all(b"last words").await.unwrap();
        let talk = async {
            let mut words = [0; 10];
            client.read_exact(&mut words).await.unwrap();
            assert_eq!(&words, b"last words");
            drop(server);
            client.read(&mut [0; 1]).await
        };
        let (end, after) = tokio::join!(run(tunnel), talk);
        assert_eq!(end.cause, EndCause::Reset(Side::Upstream));
        assert_eq!(after.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    });
}

/// A reset throws away what the kernel has not sent, so it has to wait for a slow reader.
#[test]
fn a_reset_waits_until_a_slow_reader_has_all_that_came_before() {
    const TOTAL: usize = 600_000;
    block_on(async {
        let Rig { client, mut server, mut tunnel } = rig(limits(Splice::Auto)).await;
        socket2::SockRef::from(&client).set_recv_buffer_size(16_384).unwrap();
        let mut bytes = vec![0; TOTAL];
        pattern(0, &mut bytes);
        tokio::select! {
            sent = server.write_all(&bytes) => sent.unwrap(),
            _ = run_to_end(&mut tunnel) => panic!("ended"),
        }
        reset_on_close(&server);
        drop(server);
        let reading = async {
            let (mut client, mut received) = (client, Vec::new());
            let mut buffer = [0; 10_000];
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
                match client.read(&mut buffer).await {
                    Ok(0) => panic!("the reset became a proper end"),
                    Ok(count) => received.extend_from_slice(&buffer[..count]),
                    Err(error) => break (received, error.kind()),
                }
            }
        };
        let (end, (received, error)) = tokio::join!(run(tunnel), reading);
        assert_eq!(end.cause, EndCause::Reset(Side::Upstream));
        assert_eq!(error, std::io::ErrorKind::ConnectionReset);
        assert_eq!(received.len() as u64, end.bytes_downstream);
        assert!(received == bytes[..received.len()]);
    });
}

#[test]
fn a_slow_reader_stops_the_sender_and_loses_nothing() {
    const TOTAL: usize = 8 * 1024 * 1024;
    for splice in [Splice::Auto, Splice::Never] {
        block_on(async {
            let Rig { client, server, mut tunnel } = rig(limits(splice)).await;
            // Otherwise the kernel alone takes more than the test sends.
            for stream in [socket2::SockRef::from(&client), socket2::SockRef::from(&server)] {
                stream.set_recv_buffer_size(65_536).unwrap();
                stream.set_send_buffer_size(65_536).unwrap();
            }
            for stream in [&tunnel.downstream, &tunnel.upstream] {
                let stream = socket2::SockRef::from(stream);
                stream.set_recv_buffer_size(65_536).unwrap();
                stream.set_send_buffer_size(65_536).unwrap();
            }
            let (client_reads, _client_writes) = client.into_split();
            let (_server_reads, server_writes) = server.into_split();
            let mut sending = Box::pin(send(server_writes, TOTAL));
            // Nobody reads: the tunnel must come to rest with little in its hands.
            let mut quiet = 0;
            while quiet < 20 {
                let before = tunnel.bytes();
                let step = poll_fn(|cx| {
                    assert!(sending.as_mut().poll(cx).is_pending(), "it all fitted in");
                    assert!(tunnel.poll(cx, clock::now()).is_pending());
                    Poll::Ready(())
                });
                step.await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                quiet = if tunnel.bytes() == before { quiet + 1 } else { 0 };
            }
            assert!(tunnel.bytes_on_the_way() <= 1024 * 1024, "{}", tunnel.bytes_on_the_way());
            let finish = async {
                tokio::join!(sending, check_received(client_reads, TOTAL));
            };
            let done = tokio::select! {
                () = finish => true,
                _ = run(tunnel) => false,
            };
            assert!(done, "the client's half is open, so the tunnel goes on");
        });
    }
}

#[test]
fn an_idle_tunnel_ends_and_activity_moves_the_deadline() {
    block_on(async {
        let idle = Duration::from_secs(10);
        let limits = Limits { idle_timeout: Some(idle), splice: Splice::Auto };
        let Rig { mut client, server: _server, mut tunnel } = rig(limits).await;
        let start = tunnel.last_activity();
        assert_eq!(tunnel.deadline(), Some(start + idle));
        client.write_all(b"x").await.unwrap();
        let later = start + Duration::from_secs(5);
        while tunnel.bytes().1 == 0 {
            poll_fn(|cx| {
                assert!(tunnel.poll(cx, later).is_pending());
                Poll::Ready(())
            })
            .await;
            tokio::task::yield_now().await;
        }
        assert_eq!(tunnel.deadline(), Some(later + idle));
        let end = poll_fn(|cx| tunnel.poll(cx, later + idle)).await;
        assert_eq!(end.cause, EndCause::IdleTimeout);
    });
}

/// The thread got no processor while the bytes came, and finds the limit passed before the reactor has told it of
/// them.
#[test]
fn bytes_that_came_before_a_standstill_keep_a_tunnel() {
    block_on(async {
        let idle = Duration::from_secs(10);
        let limits = Limits { idle_timeout: Some(idle), splice: Splice::Auto };
        for from_client in [true, false] {
            let Rig { mut client, mut server, mut tunnel } = rig(limits).await;
            let later = tunnel.last_activity() + idle;
            let (from, to) = match from_client {
                true => (&mut client, &mut server),
                false => (&mut server, &mut client),
            };
            from.write_all(b"x").await.unwrap();
            let mut byte = [0];
            let ended = poll_fn(|cx| Poll::Ready(tunnel.poll(cx, later).is_ready())).await;
            assert!(!ended, "there is something to pass on");
            let passed = to.read_exact(&mut byte);
            let end = poll_fn(|cx| tunnel.poll(cx, later));
            tokio::select! {
                passed = passed => drop(passed.unwrap()),
                end = end => panic!("the tunnel ended: {:?}", end.cause),
            }
        }
    });
}

#[test]
fn an_idle_tunnel_holds_neither_buffers_nor_pipes() {
    block_on(async {
        let Rig { mut client, mut server, mut tunnel } = rig(limits(Splice::Auto)).await;
        let mut received = 0;
        let total = 1_000_000;
        let sending = async { client.write_all(&vec![7; total]).await.unwrap() };
        let receiving = async {
            let mut buffer = vec![0; 65_536];
            while received < total {
                received += server.read(&mut buffer).await.unwrap();
            }
        };
        let talk = async { tokio::join!(sending, receiving) };
        tokio::select! {
            _ = talk => {}
            _ = poll_fn(|cx| tunnel.poll(cx, clock::now())) => panic!("ended"),
        }
        assert!(tunnel.to_upstream.is_empty_handed());
        assert!(tunnel.to_downstream.is_empty_handed());
    });
}

#[test]
fn a_small_socket_buffer_does_not_stop_the_tunnel() {
    const TOTAL: usize = 1024 * 1024;
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let (client, downstream) =
            tokio::join!(socket.connect(listener.local_addr().unwrap()), listener.accept());
        let (client, downstream) = (client.unwrap(), downstream.unwrap().0);
        let (upstream, server) = pair().await;
        let tunnel = Tunnel::new(
            (downstream.into(), b""),
            (upstream.into(), b""),
            limits(Splice::Auto),
            clock::now(),
        );
        let (client_reads, client_writes) = client.into_split();
        drop(client_writes);
        let (end, ..) =
            tokio::join!(run(tunnel), send(server, TOTAL), check_received(client_reads, TOTAL));
        assert_eq!(end.bytes_downstream, TOTAL as u64);
    });
}

/// What one side does: how much it sends in pieces of which size, and how large its reads are.
#[derive(Clone, Copy, Debug)]
struct Habits {
    total: usize,
    piece: usize,
    read: usize,
    /// Ends its half only after the other side did.
    ends_last: bool,
}

fn habits() -> impl Strategy<Value = Habits> {
    let small_or_large = prop_oneof![1_usize..200, 1_usize..100_000];
    (0_usize..400_000, small_or_large.clone(), small_or_large, any::<bool>()).prop_map(
        |(total, piece, read, ends_last)| Habits {
            total: total.min(piece * 2_000).min(read * 2_000),
            piece,
            read,
            ends_last,
        },
    )
}

/// Sends and receives at the same time, and checks what comes.
async fn live(stream: TcpStream, own: Habits, expected: usize) {
    let (mut reads, mut writes) = stream.into_split();
    let (ended, other_ended) = tokio::sync::oneshot::channel();
    let sending = async {
        let (mut sent, mut buffer) = (0, vec![0; own.piece]);
        while sent < own.total {
            let count = own.piece.min(own.total - sent);
            pattern(sent, &mut buffer[..count]);
            writes.write_all(&buffer[..count]).await.unwrap();
            sent += count;
        }
        if own.ends_last {
            other_ended.await.unwrap();
        }
        writes.shutdown().await.unwrap();
    };
    let receiving = async {
        let (mut received, mut buffer, mut right) = (0, vec![0; own.read], vec![0; own.read]);
        loop {
            let count = reads.read(&mut buffer).await.unwrap();
            if count == 0 {
                break;
            }
            pattern(received, &mut right[..count]);
            assert!(buffer[..count] == right[..count], "wrong bytes near {received}");
            received += count;
        }
        assert_eq!(received, expected);
        ended.send(()).unwrap_or_default();
    };
    tokio::join!(sending, receiving);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_two_sides_do_every_byte_arrives_once_and_in_order(
        client in habits(),
        server in habits(),
        copies: bool,
    ) {
        // Both waiting for the other would be their own mistake.
        let server = Habits { ends_last: server.ends_last && !client.ends_last, ..server };
        let splice = if copies { Splice::Never } else { Splice::Auto };
        block_on(async {
            let rig = rig(limits(splice)).await;
            let (end, ..) = tokio::join!(
                run(rig.tunnel),
                live(rig.client, client, server.total),
                live(rig.server, server, client.total),
            );
            assert!(matches!(end.cause, EndCause::Closed(_)), "{end:?}");
            assert_eq!(end.bytes_upstream, client.total as u64);
            assert_eq!(end.bytes_downstream, server.total as u64);
        });
    }
}
