//! A connection as a whole against two scripts of bytes, whatever they are: one is what the client sends,
//! the other what the upstream does. Also the fuzz target `connection`.
//!
//! ```text
//! client script  0xFF  upstream script        0xFE in either: a pause
//! ```

use tokio::sync::mpsc::unbounded_channel;

use super::{
    harness::{self, Client, Proxy, Script},
    message::{self, Message},
};

/// Ends the client's script.
const NEXT: u8 = 0xFF;
/// A pause.
const PAUSE: u8 = 0xFE;

/// What both sides send, in pieces with a pause after each.
pub struct Scripts {
    client: Vec<Vec<u8>>,
    upstream: Vec<Vec<u8>>,
}

/// Who sends when.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Order {
    /// The upstream begins when the client has sent all.
    InTurn,
    /// A piece of each, by turns.
    Mixed,
}

/// What arrived.
struct Seen {
    /// The request at the upstream, as far as it came.
    request: Option<Message>,
    /// The response at the client, as far as it came.
    response: Option<Message>,
}

impl Scripts {
    /// Reads both scripts from one row of bytes.
    pub fn parse(bytes: &[u8]) -> Self {
        let mut scripts = bytes.splitn(2, |byte| *byte == NEXT);
        let mut pieces = || {
            let script = scripts.next().unwrap_or_default();
            script.split(|byte| *byte == PAUSE).map(<[u8]>::to_vec).collect()
        };
        Self { client: pieces(), upstream: pieces() }
    }

    /// The same bytes without a pause.
    fn uncut(&self) -> Self {
        Self { client: vec![self.client.concat()], upstream: vec![self.upstream.concat()] }
    }

    /// Whatever the two send, in whatever order: the thread serves others meanwhile, the connection ends when
    /// its peers do, and no loop turns without a byte. When each side sends in its turn, what the other one
    /// gets does not depend on the pauses.
    pub fn check(&self) {
        self.play(Order::Mixed);
        let (cut, uncut) = (self.play(Order::InTurn), self.uncut().play(Order::InTurn));
        for (cut, uncut) in [(cut.request, uncut.request), (cut.response, uncut.response)] {
            if let (Some(cut), Some(uncut)) = (cut, uncut) {
                assert!(cut.agrees_with(&uncut), "{cut:#?}\n{uncut:#?}");
            }
        }
    }

    fn play(&self, order: Order) -> Seen {
        harness::run(async {
            let (to, mut upstreams) = unbounded_channel();
            let proxy = Proxy::start_patient(Script::ByHand(to)).await;
            let (mut client, mut other) = (proxy.connect().await, proxy.connect().await);
            let mut upstream = None;
            let mut waiting = self.upstream.iter();
            for piece in &self.client {
                client.try_send(piece).await;
                other.pause().await;
                upstream = upstream.or_else(|| upstreams.try_recv().ok().map(Client::from));
                if order == Order::Mixed {
                    say_next(&mut upstream, &mut waiting, &mut other).await;
                }
            }
            while upstream.is_some() && waiting.len() > 0 {
                say_next(&mut upstream, &mut waiting, &mut other).await;
            }
            client.try_end().await;
            other.pause().await;
            if let Some(upstream) = &mut upstream {
                upstream.try_end().await;
            }
            // Further connections to the upstream end at once.
            drop(upstreams);
            while client.more().await {}
            other.pause().await;
            assert_eq!(proxy.panics.get(), 0, "a loop does not get further");
            let request = upstream.map_or(Vec::new(), |mut upstream| upstream.look().to_vec());
            let responses = message::responses(client.look(), &self.methods());
            Seen {
                request: message::requests(&request).into_iter().next(),
                response: responses.into_iter().next(),
            }
        })
    }

    /// The method of the first request decides how its response is framed.
    fn methods(&self) -> Vec<&'static str> {
        let sent = self.client.concat();
        let begins = |method: &&&str| sent.starts_with(method.as_bytes());
        ["HEAD", "CONNECT"].iter().filter(begins).copied().collect()
    }
}

/// The upstream sends its next piece, if there is a connection and a piece.
async fn say_next(
    upstream: &mut Option<Client>,
    waiting: &mut std::slice::Iter<'_, Vec<u8>>,
    other: &mut Client,
) {
    let Some(upstream) = upstream else { return };
    let Some(piece) = waiting.next() else { return };
    upstream.try_send(piece).await;
    other.pause().await;
}
