//! A direction that turns and turns and moves nothing.

use super::*;

#[test]
fn a_tunnel_that_does_not_get_further_is_reset_on_both_sides() {
    block_on(async {
        let Rig { mut client, mut server, mut tunnel } = rig(Limits::default()).await;
        tunnel.to_upstream.outcome = Progress::Stuck;
        assert_eq!(run(tunnel).await.cause, EndCause::Stuck);
        for peer in [&mut client, &mut server] {
            let seen = peer.read(&mut [0]).await.unwrap_err();
            assert_eq!(seen.kind(), std::io::ErrorKind::ConnectionReset);
        }
    });
}
