//! Messages that come in parts with a pause between them: in the pause the connection waits, and the
//! thread serves others. Nothing may depend on where a message is cut.

use std::{cell::RefCell, rc::Rc};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{
    harness::{self, Client, Proxy, Script},
    message::{self, Message},
};

/// Where bytes are cut.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Cuts {
    /// Nowhere.
    None,
    /// Before this byte.
    Before(usize),
    /// Before each byte.
    Everywhere,
}

impl Cuts {
    async fn send(self, bytes: &str, to: &mut Client, other: &mut Client) {
        match self {
            Self::None => to.send(bytes).await,
            Self::Before(at) => {
                let (first, second) = bytes.split_at(at.min(bytes.len()));
                to.send(first).await;
                other.pause().await;
                to.send(second).await;
            }
            Self::Everywhere => {
                for at in 0..bytes.len() {
                    to.send(&bytes[at..=at]).await;
                    other.pause().await;
                }
            }
        }
    }
}

/// What a client sends and what it is answered.
pub struct Case {
    pub client: &'static str,
    /// Methods of its requests, in a row.
    methods: &'static [&'static str],
    /// One answer for each request.
    pub upstream: &'static [&'static str],
    /// The upstream closes the connection after it answered.
    closes: bool,
    /// Bytes of a tunnel to the upstream, after which it ends the tunnel.
    tunnel: usize,
}

const PLAIN: Case = Case {
    client: "GET /a?b=c HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n\r\n",
    methods: &["GET"],
    upstream: &["HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-b: 2\r\n\r\nhello"],
    closes: false,
    tunnel: 0,
};

pub const CASES: &[Case] = &[
    PLAIN,
    // Chunks with extensions and trailers, both ways.
    Case {
        client: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3;x=y\r\nabc\r\n0a\r\n0123456789\r\n0;z\r\nX-A: 1\r\nx-b: 2\r\n\r\n",
        methods: &["POST"],
        upstream: &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                     2\r\nde\r\n1;q=\"r\"\r\nf\r\n000\r\nx-c: 3\r\n\r\n"],
        ..PLAIN
    },
    // The ends of chunked bodies with nothing else.
    Case {
        client: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        methods: &["POST"],
        upstream: &["HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"],
        ..PLAIN
    },
    Case {
        client: "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\nseven b",
        methods: &["PUT"],
        upstream: &["HTTP/1.1 204 No Content\r\nx-b: 2\r\n\r\n"],
        ..PLAIN
    },
    // The body ends with the connection; for an old client too.
    Case { upstream: &["HTTP/1.1 200 OK\r\n\r\nuntil the end"], closes: true, ..PLAIN },
    Case {
        client: "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        upstream: &["HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nold\r\n0\r\n\r\n"],
        ..PLAIN
    },
    // Interim responses before the final one.
    Case {
        upstream: &["HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
                     HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"],
        ..PLAIN
    },
    Case {
        client: "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
        methods: &["POST"],
        ..PLAIN
    },
    // Several requests in a row, each with another framing.
    Case {
        client: "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\
                 POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nx-t: 1\r\n\r\n\
                 HEAD /3 HTTP/1.1\r\nHost: a\r\n\r\n\
                 POST /4 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nyz\r\n\
                 GET /5 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        methods: &["GET", "POST", "HEAD", "POST", "GET"],
        upstream: &[
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n2\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 333\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\netag: \"4\"\r\n\r\n",
            "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 1\r\n\r\n5",
        ],
        ..PLAIN
    },
    // Tunnels. The client says more than the head at once.
    Case {
        client: "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x01\x02up",
        upstream: &[
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x03down",
        ],
        tunnel: 4,
        ..PLAIN
    },
    Case {
        client: "CONNECT sent-on.example:443 HTTP/1.1\r\nHost: sent-on.example:443\r\n\r\nup",
        methods: &["CONNECT"],
        upstream: &["HTTP/1.1 200 OK\r\n\r\ndown"],
        tunnel: 2,
        ..PLAIN
    },
    Case {
        client: "CONNECT ends-here.example:443 HTTP/1.1\r\nHost: ends-here.example:443\r\n\r\nPRI * X\r\n\r\n",
        methods: &["CONNECT"],
        upstream: &["down"],
        tunnel: 11,
        ..PLAIN
    },
];

/// What the two sides understood.
#[derive(Debug, Eq, PartialEq)]
struct Understood {
    upstream: Vec<Message>,
    client: Vec<Message>,
}

/// The upstream of a case: all of its connections.
struct Upstream {
    case: &'static Case,
    cuts: Cuts,
    /// What each connection got.
    seen: RefCell<Vec<Vec<u8>>>,
    answered: RefCell<usize>,
}

impl Upstream {
    async fn serve_all(
        self: Rc<Self>,
        mut connections: UnboundedReceiver<tokio::net::TcpStream>,
        proxy: Rc<Proxy>,
    ) {
        while let Some(socket) = connections.recv().await {
            let number = self.seen.borrow().len();
            self.seen.borrow_mut().push(Vec::new());
            let (upstream, other) = (Rc::clone(&self), proxy.connect().await);
            tokio::task::spawn_local(upstream.serve(number, Client::from(socket), other));
        }
    }

    /// Answers requests until the connection ends, or all that goes through a tunnel is here.
    async fn serve(self: Rc<Self>, number: usize, mut client: Client, mut other: Client) {
        let mut of_connection = 0;
        loop {
            let got = client.look().to_vec();
            self.seen.borrow_mut()[number].clone_from(&got);
            let requests = message::requests(&got);
            // The bytes of a tunnel that begins without a request are no messages.
            let is_bare = self.case.upstream[0] == "down";
            let tunnel =
                if is_bare { got.len() } else { requests.last().map_or(0, |m| m.body.len()) };
            let is_tunnel = self.case.tunnel > 0;
            let begun = requests.iter().filter(|request| request.whole || is_tunnel).count();
            if begun.max(usize::from(is_bare)) > of_connection {
                of_connection += 1;
                let answer = self.answered.replace_with(|answered| *answered + 1);
                self.cuts.send(self.case.upstream[answer], &mut client, &mut other).await;
                if self.case.closes {
                    return;
                }
            } else if (is_tunnel && tunnel >= self.case.tunnel) || !client.more().await {
                return;
            }
        }
    }
}

impl Case {
    fn run(&'static self, client_cuts: Cuts, upstream_cuts: Cuts) -> Understood {
        harness::run(async {
            let (to, connections) = unbounded_channel();
            let proxy = Rc::new(Proxy::start_patient(Script::ByHand(to)).await);
            let upstream = Rc::new(Upstream {
                case: self,
                cuts: upstream_cuts,
                seen: RefCell::default(),
                answered: RefCell::default(),
            });
            let serving = Rc::clone(&upstream).serve_all(connections, Rc::clone(&proxy));
            tokio::task::spawn_local(serving);
            let (mut client, mut other) = (proxy.connect().await, proxy.connect().await);
            client_cuts.send(self.client, &mut client, &mut other).await;
            while self.tunnel > 0 || !self.is_answered(client.look()) {
                if !client.more().await {
                    break;
                }
            }
            assert_eq!(proxy.panics.get(), 0, "a loop does not get further");
            let got = upstream.seen.borrow().concat();
            Understood {
                upstream: message::requests(&got),
                client: message::responses(client.look(), self.methods),
            }
        })
    }

    fn is_answered(&self, got: &[u8]) -> bool {
        let responses = message::responses(got, self.methods);
        responses.iter().filter(|response| response.whole).count() == self.upstream.len()
    }

    /// Checks that nothing depends on a cut.
    fn check(&'static self) {
        let whole = self.run(Cuts::None, Cuts::None);
        assert_eq!(whole.client.len(), self.upstream.len(), "{whole:?}");
        let longest = self.upstream.iter().map(|answer| answer.len()).max().unwrap();
        for at in 1..self.client.len() {
            assert_eq!(whole, self.run(Cuts::Before(at), Cuts::None), "request cut before {at}");
        }
        for at in 1..longest {
            assert_eq!(whole, self.run(Cuts::None, Cuts::Before(at)), "response cut before {at}");
        }
        assert_eq!(whole, self.run(Cuts::Everywhere, Cuts::Everywhere));
    }
}

#[test]
fn nothing_depends_on_where_messages_are_cut() {
    for case in CASES {
        case.check();
    }
}

#[test]
fn what_the_cases_say_is_understood() {
    let Understood { upstream, client } = CASES[1].run(Cuts::Everywhere, Cuts::Everywhere);
    assert_eq!(upstream[0].body, "abc0123456789");
    assert_eq!(upstream[0].trailers, ["x-a: 1", "x-b: 2"]);
    assert_eq!(client[0].body, "def");
    assert_eq!(client[0].trailers, ["x-c: 3"]);
    let Understood { upstream, client } = CASES[8].run(Cuts::Everywhere, Cuts::Everywhere);
    let bodies = |messages: &[Message]| messages.iter().map(|m| m.body.clone()).collect::<Vec<_>>();
    assert_eq!(bodies(&upstream), ["", "x", "", "yz", ""]);
    assert_eq!(bodies(&client), ["1", "2", "", "", "5"]);
    let Understood { upstream, client } = CASES[9].run(Cuts::Everywhere, Cuts::Everywhere);
    assert_eq!((&*upstream[0].body, &*client[0].body), ("\x01\x02up", "\x03down"));
}

#[test]
fn a_client_that_leaves_in_the_last_line_of_its_request_is_gone() {
    harness::run(async {
        let (to, mut upstreams) = unbounded_channel();
        let proxy = Proxy::start(Script::ByHand(to)).await;
        let (mut client, mut other) = (proxy.connect().await, proxy.connect().await);
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(&format!("{head}0\r\nx-a: 1\r")).await;
        other.pause().await;
        let mut upstream = Client::from(upstreams.recv().await.unwrap());
        client.end().await;
        assert_eq!(client.read_to_end().await, "");
        let seen = upstream.read_to_end().await;
        assert!(seen.ends_with("chunked\r\n\r\n"), "the request was ended for its client: {seen}");
    });
}
