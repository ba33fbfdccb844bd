//! A client, or an upstream played by hand: the test says which bytes it sends.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Sends and reads raw bytes.
pub struct Client {
    socket: TcpStream,
    unread: Vec<u8>,
}

impl From<TcpStream> for Client {
    fn from(socket: TcpStream) -> Self {
        // What is sent in parts arrives in parts.
        socket.set_nodelay(true).unwrap();
        Self { socket, unread: Vec::new() }
    }
}

impl Client {
    pub async fn send(&mut self, bytes: &str) {
        self.socket.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// Sends bytes as far as the other side still takes them.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).await.is_ok()
    }

    /// What came so far, or came and was not read yet; it stays unread.
    pub fn look(&mut self) -> &[u8] {
        let mut room = [0; 8 * 1024];
        while let Ok(count @ 1..) = self.socket.try_read(&mut room) {
            self.unread.extend_from_slice(&room[..count]);
        }
        &self.unread
    }

    /// Waits for more bytes; false when there are none.
    pub async fn more(&mut self) -> bool {
        matches!(self.socket.read_buf(&mut self.unread).await, Ok(1..))
    }

    /// The proxy has done all it can with what others sent so far, and serves this client.
    pub async fn pause(&mut self) {
        for _ in 0..2 {
            self.send("GET /direct HTTP/1.1\r\nHost: a\r\n\r\n").await;
            self.read_until("\r\n\r\nhello").await;
        }
    }

    /// Ends the connection with a reset.
    pub fn reset(self) {
        self.socket.set_zero_linger().unwrap();
    }

    /// Ends our half of the connection.
    pub async fn end(&mut self) {
        self.socket.shutdown().await.unwrap();
    }

    /// The same, when the other side may be gone.
    pub async fn try_end(&mut self) {
        drop(self.socket.shutdown().await);
    }

    /// All that comes up to the end; an error when that is a reset.
    pub async fn read_to_clean_end(&mut self) -> std::io::Result<String> {
        while self.socket.read_buf(&mut self.unread).await? > 0 {}
        Ok(String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned())
    }

    /// Whether the other side has closed its socket and not just its half: then the first bytes are
    /// answered with a reset.
    pub async fn is_alone(&mut self) -> bool {
        self.send("x").await;
        self.socket.write_all(b"x").await.is_err()
    }

    /// Everything up to and with `mark`.
    pub async fn read_until(&mut self, mark: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.unread).into_owned();
            if let Some(at) = text.find(mark) {
                let end = at + mark.len();
                self.unread.drain(..end);
                return text[..end].to_owned();
            }
            let count = self.socket.read_buf(&mut self.unread).await.unwrap();
            assert_ne!(count, 0, "the connection ended; so far: {text}");
        }
    }

    /// So many bytes.
    pub async fn read_exactly(&mut self, count: usize) -> String {
        while self.unread.len() < count {
            let read = self.socket.read_buf(&mut self.unread).await.unwrap();
            assert_ne!(read, 0, "the connection ended after {} bytes", self.unread.len());
        }
        String::from_utf8(self.unread.drain(..count).collect()).unwrap()
    }

    /// Everything up to the end, which may be a reset.
    pub async fn read_to_end(&mut self) -> String {
        while self.more().await {}
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }
}

/// The part behind the first empty line.
pub fn body(message: &str) -> &str {
    message.split_once("\r\n\r\n").unwrap().1
}

/// The data of a chunked body without extensions.
pub fn unchunk(mut body: &str) -> String {
    let mut data = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return data;
        }
        data.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
}
