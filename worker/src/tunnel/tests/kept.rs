//! Tunnels whose state is in the kernel, and what is left of them when their process is gone.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::sys::socket::{MsgFlags, recv};

use super::*;
use crate::sys::{receive_queue, tcp};
use crate::tunnel::{
    KeptParts, Leads,
    lead::{Counts, Lead, Restored},
    pump::Direction,
    splice::Pipe,
};

/// Copies of the copies, as the supervisor makes them for the one who goes on.
fn copies(parts: &KeptParts) -> KeptParts {
    let copy = |fd: &std::os::fd::OwnedFd| fd.try_clone().unwrap();
    let pipe = |pipe: &PipeParts| PipeParts { read: copy(&pipe.read), write: copy(&pipe.write) };
    KeptParts {
        downstream: copy(&parts.downstream),
        upstream: copy(&parts.upstream),
        to_upstream: pipe(&parts.to_upstream),
        to_downstream: pipe(&parts.to_downstream),
    }
}

/// Makes a tunnel of what another process left in the kernel.
fn adopt(kept: &KeptParts, leads: Option<Leads>, limits: Limits) -> Tunnel {
    let parts = copies(kept).inspect(leads).unwrap();
    Tunnel::import(parts, limits, clock::now()).unwrap()
}

/// Does the first half of passing a message, as a process that dies then: the sink has what the
/// source has still. Says whether there was something.
fn pass_half(direction: &Direction, source: &Stream, sink: &Stream) -> bool {
    let goes_on = direction.outcome() == Progress::Waiting && !direction.source_ended;
    if !goes_on || !direction.passes || direction.on_the_way() > 0 {
        return false;
    }
    let mut message = [0; 5000];
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let seen = recv(source.as_raw_fd(), &mut message, flags).unwrap_or(0);
    seen > 0 && sink.try_write(&message[..seen]).is_ok_and(|sent| sent > 0)
}

/// Runs a tunnel that loses its process at random moments between two polls or in the middle of passing
/// a message; counts how often, how often with bytes in a pipe, and how often in the middle.
async fn run_dying(mut tunnel: Tunnel, seed: u64) -> (TunnelEnd, [u32; 3]) {
    const MOST: u32 = 1000;
    let (kept, leads) = tunnel.keep().unwrap();
    let limits = tunnel.limits;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut counts = [0; 3];
    let mut slot = Some(tunnel);
    let mut die = |tunnel: Tunnel, counts: &mut [u32; 3]| {
        if counts[0] >= MOST || random.u32(..3) > 0 {
            return (tunnel, false);
        }
        counts[0] += 1;
        counts[1] += u32::from(tunnel.bytes_on_the_way() > 0);
        let Tunnel { downstream, upstream, .. } = &tunnel;
        counts[2] += u32::from(pass_half(&tunnel.to_upstream, downstream, upstream));
        counts[2] += u32::from(pass_half(&tunnel.to_downstream, upstream, downstream));
        // Nothing of it but what the kernel has.
        drop(tunnel);
        (adopt(&kept, leads, limits), true)
    };
    let end = poll_fn(|cx| {
        loop {
            let (mut tunnel, _) = die(slot.take().unwrap(), &mut counts);
            if let Poll::Ready(end) = tunnel.poll(cx, clock::now()) {
                // As when others have copies.
                tunnel.downstream.end_now();
                tunnel.upstream.end_now();
                return Poll::Ready(end);
            }
            let (tunnel, died) = die(tunnel, &mut counts);
            slot = Some(tunnel);
            if !died {
                return Poll::Pending;
            }
        }
    });
    (end.await, counts)
}

#[test]
fn a_kept_tunnel_has_no_byte_in_this_process() {
    block_on(async {
        let Rig { mut client, mut server, mut tunnel } = rig(limits(Splice::Auto)).await;
        drop(tunnel.keep().unwrap());
        let talk = async {
            for round in 0..20_u8 {
                client.write_all(&[round; 100]).await.unwrap();
                server.read_exact(&mut [0; 100]).await.unwrap();
                server.write_all(&[round; 30]).await.unwrap();
                client.read_exact(&mut [0; 30]).await.unwrap();
            }
        };
        tokio::select! {
            () = talk => {}
            end = run_to_end(&mut tunnel) => panic!("{end:?}"),
        }
        assert_eq!(tunnel.bytes(), (600, 2000));
        assert_eq!((tunnel.bytes_spliced(), tunnel.bytes_on_the_way()), (0, 0));
        assert!(tunnel.to_upstream.held.is_unallocated());
    });
}

#[test]
fn bytes_that_came_early_keep_a_tunnel_out_of_the_kernel_until_they_are_gone() {
    block_on(async {
        let (_client, downstream) = pair().await;
        let (upstream, _server) = pair().await;
        let ends = ((downstream.into(), &b"early"[..]), (upstream.into(), &b""[..]));
        let mut tunnel = Tunnel::new(ends.0, ends.1, limits(Splice::Auto), clock::now());
        assert!(!tunnel.can_be_kept());
        poll_fn(|cx| {
            assert!(tunnel.poll(cx, clock::now()).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(tunnel.can_be_kept());
        let (_a, b) = UnixStream::pair().unwrap();
        let (c, _d) = pair().await;
        let unix =
            Tunnel::new((b.into(), b""), (c.into(), b""), limits(Splice::Auto), clock::now());
        assert!(!unix.can_be_kept(), "splice needs TCP on both sides");
    });
}

#[test]
fn what_the_kernel_has_is_enough_to_go_on_with() {
    const TOTAL: usize = 3 * 1024 * 1024;
    block_on(async {
        let mut all = [0; 3];
        for seed in 0..3 {
            let Rig { client, server, tunnel } = rig(limits(Splice::Auto)).await;
            socket2::SockRef::from(&tunnel.downstream).set_send_buffer_size(32_768).unwrap();
            let (client_reads, client_writes) = client.into_split();
            let (server_reads, server_writes) = server.into_split();
            let ((end, counts), ..) = tokio::join!(
                run_dying(tunnel, seed),
                send(client_writes, TOTAL),
                send(server_writes, TOTAL),
                check_received(client_reads, TOTAL),
                check_received(server_reads, TOTAL),
            );
            assert!(matches!(end.cause, EndCause::Closed(_)), "{end:?}");
            // Also the bytes are counted by the kernel.
            assert_eq!((end.bytes_downstream, end.bytes_upstream), (TOTAL as u64, TOTAL as u64));
            all = std::array::from_fn(|at| all[at] + counts[at]);
        }
        assert!(all[..2].iter().all(|count| *count > 10), "deaths, with bytes in a pipe: {all:?}");
    });
}

#[test]
fn messages_pass_once_though_processes_die_in_the_middle_of_them() {
    const MESSAGES: u8 = 200;
    block_on(async {
        let mut passing = 0;
        for seed in 0..3 {
            let Rig { mut client, mut server, tunnel } = rig(limits(Splice::Auto)).await;
            let talk = async {
                let mut random = fastrand::Rng::with_seed(seed);
                for number in 0..MESSAGES {
                    let question = vec![number; random.usize(1..3000)];
                    client.write_all(&question).await.unwrap();
                    let mut came = vec![0; question.len()];
                    server.read_exact(&mut came).await.unwrap();
                    assert_eq!(came, question);
                    server.write_all(&[number]).await.unwrap();
                    let mut answer = [0];
                    client.read_exact(&mut answer).await.unwrap();
                    assert_eq!(answer, [number]);
                }
                // The last message and the end are there together.
                client.write_all(b"bye").await.unwrap();
                client.shutdown().await.unwrap();
                let mut rest = Vec::new();
                server.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest, b"bye");
                drop(server);
                assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            };
            let ((end, counts), ()) = tokio::join!(run_dying(tunnel, seed), talk);
            assert_eq!(end.cause, EndCause::Closed(Side::Downstream));
            assert_eq!(end.bytes_downstream, u64::from(MESSAGES));
            passing += counts[2];
        }
        assert!(passing > 50, "deaths in the middle of a message: {passing}");
    });
}

/// What became of a direction when its process died with these first bytes of "abcdef" sent and not
/// taken, and something happened to the source meanwhile; and what was left there.
fn left_after(
    sent: &[u8],
    meanwhile: fn(TcpStream) -> Option<TcpStream>,
) -> (io::Result<Restored>, Vec<u8>) {
    block_on(async {
        let (mut client, source) = pair().await;
        let (sink, _server) = pair().await;
        let pipe = Pipe::own().unwrap();
        let (pipe, _write) = pipe.duplicate().unwrap();
        let descriptor = |stream: &TcpStream| stream.as_fd().try_clone_to_owned().unwrap();
        let (from, to) = (descriptor(&source), descriptor(&sink));
        let lead = Lead::of(&from, &pipe, &to).unwrap();
        client.write_all(b"abcdef").await.unwrap();
        source.readable().await.unwrap();
        assert_eq!(sink.try_write(sent).unwrap_or(0), sent.len());
        let _client = meanwhile(client);
        let restored = lead.restore(&from, &pipe, &to);
        let mut left = vec![0; 100];
        let count = source.try_read(&mut left).unwrap_or(0);
        left.truncate(count);
        (restored, left)
    })
}

#[test]
fn what_the_sink_has_is_taken_from_the_source_whatever_happened_to_it() {
    let end = |client: TcpStream| {
        socket2::SockRef::from(&client).shutdown(std::net::Shutdown::Write).unwrap();
        Some(client)
    };
    let reset = |client: TcpStream| {
        reset_on_close(&client);
        None
    };
    for (sent, left) in [(&b""[..], &b"abcdef"[..]), (b"a", b"bcdef"), (b"abcdef", b"")] {
        for happened in [Some, end] {
            let (restored, found) = left_after(sent, happened);
            assert_eq!((restored.unwrap(), &*found), (Restored::Whole, left), "{sent:?}");
        }
        let (restored, found) = left_after(sent, reset);
        assert_eq!((restored.unwrap(), found), (Restored::Broken, Vec::new()), "{sent:?}");
    }
}

#[test]
fn an_end_that_comes_while_it_is_counted_costs_no_byte() {
    block_on(async {
        let (mut client, mut source) = pair().await;
        let (sink, _server) = pair().await;
        let (pipe, _write) = Pipe::own().unwrap().duplicate().unwrap();
        let descriptor = |stream: &TcpStream| stream.as_fd().try_clone_to_owned().unwrap();
        let (from, to) = (descriptor(&source), descriptor(&sink));
        let lead = Lead::of(&from, &pipe, &to).unwrap();
        source.shutdown().await.unwrap();
        client.write_all(b"abcdef").await.unwrap();
        source.readable().await.unwrap();
        let counts = Counts::of(&from, &pipe, &to).unwrap();
        client.shutdown().await.unwrap();
        while !tcp::info(&from).unwrap().is_closed() {
            tokio::task::yield_now().await;
        }
        assert_eq!(lead.restore_counted(counts, &from).unwrap(), Restored::Whole);
        let mut left = Vec::new();
        source.read_to_end(&mut left).await.unwrap();
        assert_eq!(left, b"abcdef");
    });
}

/// Polls a tunnel that does not end until its upstream socket is over.
async fn run_until_upstream_is_over(tunnel: &mut Tunnel) {
    let upstream = tunnel.upstream.duplicate().unwrap();
    while !tcp::info(&upstream).unwrap().is_closed() {
        let step = poll_fn(|cx| Poll::Ready(tunnel.poll(cx, clock::now()))).await;
        assert!(step.is_pending());
        tokio::task::yield_now().await;
    }
    assert!(receive_queue::readable(&upstream).unwrap() > 0, "there is more to come");
}

#[test]
fn an_answer_and_its_end_that_wait_for_a_slow_client_outlive_their_process() {
    /// More than is on its way to the client, and less than fits into the queue before the tunnel.
    const TOTAL: usize = 300_000;
    block_on(async {
        for kept_first in [true, false] {
            let Rig { mut client, mut server, mut tunnel } = rig(limits(Splice::Auto)).await;
            socket2::SockRef::from(&client).set_recv_buffer_size(4096).unwrap();
            socket2::SockRef::from(&tunnel.downstream).set_send_buffer_size(16_384).unwrap();
            socket2::SockRef::from(&tunnel.upstream).set_recv_buffer_size(1 << 20).unwrap();
            let kept = kept_first.then(|| tunnel.keep().unwrap());
            client.shutdown().await.unwrap();
            let mut byte = [0];
            tokio::select! {
                end = server.read(&mut byte) => assert_eq!(end.unwrap(), 0),
                end = run_to_end(&mut tunnel) => panic!("{end:?}"),
            }
            tokio::join!(send(server, TOTAL), run_until_upstream_is_over(&mut tunnel));
            let (kept, leads) = kept.unwrap_or_else(|| tunnel.keep().unwrap());
            drop(tunnel);
            let tunnel = adopt(&kept, leads, limits(Splice::Auto));
            drop(kept);
            socket2::SockRef::from(&client).set_recv_buffer_size(1 << 20).unwrap();
            let (end, ()) = tokio::join!(run(tunnel), check_received(client, TOTAL));
            assert_eq!(end.cause, EndCause::Closed(Side::Downstream));
        }
    });
}

#[test]
fn bytes_that_nobody_can_have_passed_end_the_tunnel() {
    let (restored, _) = left_after(b"abcdef and more", Some);
    assert_eq!(restored.unwrap_err().kind(), io::ErrorKind::InvalidData);
}

#[test]
fn a_reset_in_the_middle_of_a_message_is_a_reset_and_nothing_comes_twice() {
    block_on(async {
        let Rig { mut client, mut server, mut tunnel } = rig(limits(Splice::Auto)).await;
        let (kept, leads) = tunnel.keep().unwrap();
        client.write_all(b"message").await.unwrap();
        poll_fn(|cx| tunnel.downstream.poll_read_ready(cx)).await.unwrap();
        assert!(pass_half(&tunnel.to_upstream, &tunnel.downstream, &tunnel.upstream));
        reset_on_close(&client);
        drop(client);
        drop(tunnel);
        let tunnel = adopt(&kept, leads, limits(Splice::Auto));
        drop(kept);
        assert_eq!(run(tunnel).await.cause, EndCause::Reset(Side::Downstream));
        let mut came = [0; 20];
        assert_eq!(server.read(&mut came).await.unwrap(), 7);
        let error = server.read(&mut came).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_half_closed_tunnel_passes_no_messages_whenever_it_is_kept() {
    block_on(async {
        for kept_first in [true, false] {
            let Rig { mut client, mut server, mut tunnel } = rig(limits(Splice::Auto)).await;
            if kept_first {
                drop(tunnel.keep().unwrap());
            }
            client.shutdown().await.unwrap();
            let mut byte = [0];
            tokio::select! {
                end = server.read(&mut byte) => assert_eq!(end.unwrap(), 0),
                end = run_to_end(&mut tunnel) => panic!("{end:?}"),
            }
            let (kept, leads) = tunnel.keep().unwrap();
            assert!(!tunnel.to_upstream.passes && !tunnel.to_downstream.passes);
            drop(tunnel);
            let tunnel = adopt(&kept, leads, limits(Splice::Auto));
            assert!(!tunnel.to_downstream.passes, "nor where it goes on");
        }
    });
}

#[test]
fn a_reset_that_only_the_dead_process_saw_is_still_a_reset() {
    block_on(async {
        let Rig { client, mut server, mut tunnel } = rig(limits(Splice::Auto)).await;
        let (kept, leads) = tunnel.keep().unwrap();
        reset_on_close(&client);
        drop(client);
        // The dead process has read the error, which the kernel tells only once.
        poll_fn(|cx| tunnel.downstream.poll_read_ready(cx)).await.unwrap();
        assert!(tunnel.downstream.try_read(&mut [0; 1]).is_err());
        drop(tunnel);
        let tunnel = adopt(&kept, leads, limits(Splice::Auto));
        drop(kept);
        let end = run(tunnel).await;
        assert_eq!(end.cause, EndCause::Reset(Side::Downstream));
        let error = server.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn however_often_its_process_dies_every_byte_arrives_once_and_in_order(
        client in habits(),
        server in habits(),
        seed: u64,
    ) {
        let server = Habits { ends_last: server.ends_last && !client.ends_last, ..server };
        block_on(async {
            let rig = rig(limits(Splice::Auto)).await;
            let ((end, _), ..) = tokio::join!(
                run_dying(rig.tunnel, seed),
                live(rig.client, client, server.total),
                live(rig.server, server, client.total),
            );
            assert!(matches!(end.cause, EndCause::Closed(_)), "{end:?}");
            assert_eq!(end.bytes_upstream, client.total as u64);
            assert_eq!(end.bytes_downstream, server.total as u64);
        });
    }
}
