//! Tunnels whose state is in the kernel, and what is left of them when their process is gone.

use super::*;
use crate::tunnel::KeptParts;

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

/// Runs a tunnel that loses its process at random moments between two polls; counts how often, and
/// how often with bytes in a pipe.
async fn run_dying(mut tunnel: Tunnel, seed: u64) -> (TunnelEnd, [u32; 2]) {
    const MOST: u32 = 1000;
    let kept = tunnel.keep().unwrap();
    let limits = tunnel.limits;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut counts = [0; 2];
    let mut slot = Some(tunnel);
    let end = poll_fn(|cx| {
        loop {
            let mut tunnel = slot.take().unwrap();
            if let Poll::Ready(end) = tunnel.poll(cx, clock::now()) {
                // As when others have copies.
                tunnel.downstream.end_now();
                tunnel.upstream.end_now();
                return Poll::Ready(end);
            }
            if counts[0] >= MOST || random.u32(..3) > 0 {
                slot = Some(tunnel);
                return Poll::Pending;
            }
            counts[0] += 1;
            counts[1] += u32::from(tunnel.bytes_on_the_way() > 0);
            // Nothing of it but what the kernel has.
            drop(tunnel);
            slot = Some(Tunnel::adopt(copies(&kept), limits, clock::now()).unwrap());
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
        assert_eq!(tunnel.bytes_spliced(), 2600);
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
    const TOTAL: usize = 8 * 1024 * 1024;
    block_on(async {
        let mut all = [0; 2];
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
        assert!(all.iter().all(|count| *count > 10), "deaths, with bytes in a pipe: {all:?}");
    });
}

#[test]
fn a_reset_that_only_the_dead_process_saw_is_still_a_reset() {
    block_on(async {
        let Rig { client, mut server, mut tunnel } = rig(limits(Splice::Auto)).await;
        let kept = tunnel.keep().unwrap();
        reset_on_close(&client);
        drop(client);
        // The dead process has read the error, which the kernel tells only once.
        poll_fn(|cx| tunnel.downstream.poll_read_ready(cx)).await.unwrap();
        assert!(tunnel.downstream.try_read(&mut [0; 1]).is_err());
        drop(tunnel);
        let tunnel = Tunnel::adopt(copies(&kept), limits(Splice::Auto), clock::now()).unwrap();
        drop(kept);
        let end = run(tunnel).await;
        assert_eq!(end.cause, EndCause::Reset(Side::Downstream));
        let error = server.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
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
