//! Tunnels that are taken apart and put together while bytes move.

use super::*;
use crate::tunnel::splice::pool_of_this_thread;

/// What happens to the parts of a tunnel.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// Dropped: the tunnel goes on where it is.
    Thawed,
    /// The old tunnel is dropped first.
    Handed,
    /// The new one is there before the old one is dropped.
    Overlapping,
}

fn moved(tunnel: Tunnel, fate: Fate) -> Tunnel {
    let parts = tunnel.export(clock::now()).unwrap();
    let limits = tunnel.limits;
    match fate {
        Fate::Thawed => tunnel,
        Fate::Handed => {
            drop(tunnel);
            Tunnel::import(parts, limits, clock::now()).unwrap()
        }
        Fate::Overlapping => {
            let new = Tunnel::import(parts, limits, clock::now()).unwrap();
            drop(tunnel);
            new
        }
    }
}

/// Runs a tunnel to its end and moves it often. Returns how often, and how often with bytes in a
/// pipe and in a buffer.
async fn run_moving(tunnel: Tunnel, seed: u64) -> (TunnelEnd, [u32; 3]) {
    const MOST: u32 = 1000;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut counts = [0; 3];
    let mut slot = Some(tunnel);
    let end = poll_fn(|cx| {
        loop {
            let mut tunnel = slot.take().unwrap();
            if let Poll::Ready(end) = tunnel.poll(cx, clock::now()) {
                return Poll::Ready(end);
            }
            if counts[0] >= MOST || random.u32(..3) > 0 {
                slot = Some(tunnel);
                return Poll::Pending;
            }
            let directions = [&tunnel.to_upstream, &tunnel.to_downstream];
            counts[0] += 1;
            counts[1] += u32::from(directions.iter().any(|d| d.pipe.is_some()));
            counts[2] += u32::from(directions.iter().any(|d| !d.held.bytes().is_empty()));
            let fate = [Fate::Thawed, Fate::Handed, Fate::Overlapping][random.usize(..3)];
            slot = Some(moved(tunnel, fate));
        }
    });
    (end.await, counts)
}

/// A rig whose kernel buffers are small, so that much stays in the tunnel's hands.
async fn tight_rig(splice: Splice) -> Rig {
    let rig = rig(limits(splice)).await;
    let (down, up) = (&rig.tunnel.downstream, &rig.tunnel.upstream);
    let ends = [socket2::SockRef::from(&rig.client), socket2::SockRef::from(&rig.server)];
    for socket in ends.into_iter().chain([socket2::SockRef::from(down), socket2::SockRef::from(up)])
    {
        socket.set_send_buffer_size(32_768).unwrap();
    }
    rig
}

#[test]
fn bulk_that_waits_in_pipes_and_buffers_arrives_whole_over_many_moves() {
    const TOTAL: usize = 8 * 1024 * 1024;
    block_on(async {
        let mut all = [0; 3];
        // With pipes, buffers are used only until the transfer is found to be a large one.
        let ways = [Splice::Auto, Splice::Auto, Splice::Auto, Splice::Never];
        for (seed, way) in (0..).zip(ways) {
            let Rig { client, server, tunnel } = tight_rig(way).await;
            let (client_reads, client_writes) = client.into_split();
            let (server_reads, server_writes) = server.into_split();
            let ((end, counts), ..) = tokio::join!(
                run_moving(tunnel, seed),
                send(client_writes, TOTAL),
                send(server_writes, TOTAL),
                check_received(client_reads, TOTAL),
                check_received(server_reads, TOTAL),
            );
            assert!(matches!(end.cause, EndCause::Closed(_)), "{end:?}");
            assert_eq!((end.bytes_downstream, end.bytes_upstream), (TOTAL as u64, TOTAL as u64));
            all = std::array::from_fn(|at| all[at] + counts[at]);
        }
        assert!(all.iter().all(|count| *count > 10), "moves, with a pipe, with a buffer: {all:?}");
        let (open, idle) = pool_of_this_thread();
        assert_eq!(open, idle, "a pipe was lost from the books");
    });
}

#[test]
fn a_moved_tunnel_sends_nothing_to_its_peers() {
    block_on(async {
        let Rig { mut client, mut server, tunnel } = rig(limits(Splice::Auto)).await;
        let parts = tunnel.export(clock::now()).unwrap();
        drop(tunnel);
        client.write_all(b"a").await.unwrap();
        let quiet = Duration::from_millis(50);
        let (mut at_client, mut at_server) = ([0; 1], [0; 1]);
        let nothing = async {
            tokio::select! {
                read = client.read(&mut at_client) => panic!("{read:?}"),
                read = server.read(&mut at_server) => panic!("{read:?}"),
            }
        };
        assert!(tokio::time::timeout(quiet, nothing).await.is_err());
        let tunnel = Tunnel::import(parts, limits(Splice::Auto), clock::now()).unwrap();
        let talk = async {
            server.read_exact(&mut at_server).await.unwrap();
            assert_eq!(&at_server, b"a");
            server.write_all(b"b").await.unwrap();
            client.read_exact(&mut at_client).await.unwrap();
            assert_eq!(&at_client, b"b");
            drop((client, server));
        };
        let (end, ()) = tokio::join!(run(tunnel), talk);
        assert_eq!((end.bytes_upstream, end.bytes_downstream), (1, 1));
    });
}

#[test]
fn a_half_closed_tunnel_moves_with_its_end() {
    block_on(async {
        let Rig { mut client, mut server, mut tunnel } = rig(limits(Splice::Auto)).await;
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = Vec::new();
        tokio::select! {
            read = server.read_to_end(&mut question) => assert_eq!(read.unwrap(), 8),
            end = run_to_end(&mut tunnel) => panic!("{end:?}"),
        }
        let tunnel = moved(tunnel, Fate::Handed);
        let talk = async {
            server.write_all(b"answer").await.unwrap();
            drop(server);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"answer");
        };
        let (end, ()) = tokio::join!(run(tunnel), talk);
        assert_eq!(end.cause, EndCause::Closed(Side::Downstream));
        assert_eq!((end.bytes_upstream, end.bytes_downstream), (8, 6));
    });
}

#[test]
fn a_reset_that_waits_for_a_slow_reader_moves_and_stays_a_reset() {
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
        let moving = async {
            loop {
                let deadline = tunnel.deadline().unwrap_or_else(|| clock::now() + PATIENCE);
                let step = poll_fn(|cx| tunnel.poll(cx, clock::now()));
                match tokio::time::timeout_at(deadline.into(), step).await {
                    Ok(end) => {
                        drop(tunnel);
                        break end;
                    }
                    Err(_) => tunnel = moved(tunnel, Fate::Overlapping),
                }
            }
        };
        let (end, (received, error)) = tokio::join!(moving, reading);
        assert_eq!(end.cause, EndCause::Reset(Side::Upstream));
        assert_eq!(error, std::io::ErrorKind::ConnectionReset);
        assert_eq!(received.len() as u64, end.bytes_downstream);
        assert!(received == bytes[..received.len()]);
    });
}

#[test]
fn the_idle_time_moves_with_the_tunnel() {
    block_on(async {
        let idle_timeout = Some(Duration::from_secs(10));
        let limits = Limits { idle_timeout, splice: Splice::Auto };
        let Rig { client: _client, server: _server, tunnel } = rig(limits).await;
        let later = tunnel.last_activity() + Duration::from_secs(4);
        let parts = tunnel.export(later).unwrap();
        assert_eq!(parts.idle, Duration::from_secs(4));
        let tunnel = Tunnel::import(parts, limits, later).unwrap();
        assert_eq!(tunnel.deadline(), Some(later + Duration::from_secs(6)));
    });
}

#[test]
fn what_is_no_stream_socket_or_no_pipe_is_refused() {
    block_on(async {
        let Rig { client: _client, server: _server, tunnel } = rig(limits(Splice::Auto)).await;
        let file = std::fs::File::open("/dev/null").unwrap();
        let mut parts = tunnel.export(clock::now()).unwrap();
        parts.upstream = file.try_clone().unwrap().into();
        assert!(Tunnel::import(parts, limits(Splice::Auto), clock::now()).is_err());
        let mut parts = tunnel.export(clock::now()).unwrap();
        parts.to_upstream.pipe =
            Some(PipeParts { read: file.try_clone().unwrap().into(), write: file.into() });
        assert!(Tunnel::import(parts, limits(Splice::Auto), clock::now()).is_err());
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn however_often_it_moves_every_byte_arrives_once_and_in_order(
        client in habits(),
        server in habits(),
        copies: bool,
        seed: u64,
    ) {
        let server = Habits { ends_last: server.ends_last && !client.ends_last, ..server };
        let splice = if copies { Splice::Never } else { Splice::Auto };
        block_on(async {
            let rig = tight_rig(splice).await;
            let ((end, _), ..) = tokio::join!(
                run_moving(rig.tunnel, seed),
                live(rig.client, client, server.total),
                live(rig.server, server, client.total),
            );
            assert!(matches!(end.cause, EndCause::Closed(_)), "{end:?}");
            assert_eq!(end.bytes_upstream, client.total as u64);
            assert_eq!(end.bytes_downstream, server.total as u64);
        });
    }
}
