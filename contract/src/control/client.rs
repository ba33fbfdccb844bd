//! The commands' side of the control socket. Blocking, with a deadline.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Answer, MAX_LINE_LEN, Request, path::SOCKET_PATH_MAX};
use crate::{clock, exit::Exit};

/// Why a command got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no supervisor answers at `{}`", path.display())]
    NotRunning {
        /// The control socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The socket belongs to somebody else.
    #[error("not allowed to use the control socket `{}`", path.display())]
    Permission {
        /// The control socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No socket can be there.
    #[error(
        "the path of the control socket has {} bytes, at most {SOCKET_PATH_MAX} are possible: `{}`",
        path.as_os_str().len(), path.display()
    )]
    PathTooLong {
        /// The control socket.
        path: PathBuf,
    },
    /// No final answer came in time.
    #[error("no answer within {} s; the state is unknown", after.as_secs_f32())]
    TimedOut {
        /// The time allowed.
        after: Duration,
    },
    /// The connection ended without a final answer.
    #[error("the supervisor ended the connection without an answer")]
    Ended,
    /// The supervisor is not one.
    #[error("the answer of the supervisor is malformed")]
    Malformed(#[source] serde_json::Error),
    /// The socket failed.
    #[error("cannot talk to the supervisor")]
    Io(#[source] io::Error),
}

impl ClientError {
    /// How a command ends that got this error.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::NotRunning { .. } | Self::Ended => Exit::NotRunning,
            Self::Permission { .. } => Exit::Permission,
            Self::PathTooLong { .. } => Exit::Usage,
            Self::TimedOut { .. } => Exit::TimedOut,
            Self::Malformed(_) | Self::Io(_) => Exit::Internal,
        }
    }
}

/// Sends one request and returns the final answer; `on_phase` sees the lines before it.
///
/// # Errors
/// When no final answer came within `timeout`; see [`ClientError::exit`].
pub fn ask(
    path: &Path,
    request: &Request,
    timeout: Duration,
    mut on_phase: impl FnMut(&Answer),
) -> Result<Answer, ClientError> {
    let deadline = clock::now().checked_add(timeout);
    let mut stream = connect(path)?;
    let mut line = serde_json::to_vec(request).map_err(ClientError::Malformed)?;
    line.push(b'\n');
    stream.set_write_timeout(Some(timeout.max(MIN_TIMEOUT))).map_err(ClientError::Io)?;
    stream.write_all(&line).map_err(|error| late(error, timeout))?;
    let mut reader = BufReader::new(stream);
    loop {
        let left = deadline.map_or(timeout, |at| at.saturating_duration_since(clock::now()));
        if left.is_zero() {
            return Err(ClientError::TimedOut { after: timeout });
        }
        let limit = Some(left.max(MIN_TIMEOUT));
        reader.get_ref().set_read_timeout(limit).map_err(ClientError::Io)?;
        let mut line = Vec::new();
        let room = u64::try_from(MAX_LINE_LEN).unwrap_or(u64::MAX);
        reader
            .by_ref()
            .take(room)
            .read_until(b'\n', &mut line)
            .map_err(|error| late(error, timeout))?;
        if line.is_empty() {
            return Err(ClientError::Ended);
        }
        let answer: Answer = serde_json::from_slice(&line).map_err(ClientError::Malformed)?;
        if answer.is_final() {
            return Ok(answer);
        }
        on_phase(&answer);
    }
}

/// A timeout of zero would mean "none" to the socket.
const MIN_TIMEOUT: Duration = Duration::from_millis(1);

fn connect(path: &Path) -> Result<UnixStream, ClientError> {
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(ClientError::PathTooLong { path: path.to_owned() });
    }
    UnixStream::connect(path).map_err(|source| {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::PermissionDenied {
            ClientError::Permission { path, source }
        } else {
            ClientError::NotRunning { path, source }
        }
    })
}

fn late(error: io::Error, after: Duration) -> ClientError {
    let kind = error.kind();
    if matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
        ClientError::TimedOut { after }
    } else if matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
        // It died, or executes another program, with the request still in its queue.
        ClientError::Ended
    } else {
        ClientError::Io(error)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::control::{Phase, Step};

    fn socket(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("baton-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("directory");
        directory.join("s")
    }

    #[test]
    fn nobody_there_is_not_running() {
        let error = ask(&socket("none"), &Request::Status, Duration::from_secs(1), |_| ())
            .expect_err("nobody");
        assert_eq!(error.exit(), Exit::NotRunning);
    }

    #[test]
    fn a_path_no_socket_can_have_is_a_mistake_of_the_command_line() {
        let path = PathBuf::from("/tmp").join("x".repeat(SOCKET_PATH_MAX));
        let error = ask(&path, &Request::Status, Duration::from_secs(1), |_| ()).expect_err("long");
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.to_string().contains("has 112 bytes, at most 107"), "{error}");
    }

    #[test]
    fn silence_is_a_timeout() {
        let path = socket("silent");
        let listener = UnixListener::bind(&path).expect("bind");
        let error =
            ask(&path, &Request::Status, Duration::from_millis(20), |_| ()).expect_err("silence");
        assert_eq!(error.exit(), Exit::TimedOut);
        drop(listener);
        std::fs::remove_file(&path).expect("remove");
    }

    #[test]
    fn phases_come_before_the_final_answer() {
        let path = socket("phases");
        let listener = UnixListener::bind(&path).expect("bind");
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("accept");
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).expect("read");
            assert_eq!(line.trim(), r#"{"request":"status"}"#);
            let phase = Phase { step: Step::Read, at_us: 5, generation: None, text: String::new() };
            for answer in [Answer::Phase(phase), Answer::Done { text: "ok".to_owned() }] {
                let mut line = serde_json::to_vec(&answer).expect("encode");
                line.push(b'\n');
                (&stream).write_all(&line).expect("write");
            }
        });
        let mut phases = 0;
        let answer =
            ask(&path, &Request::Status, Duration::from_secs(5), |_| phases += 1).expect("ask");
        assert_eq!((phases, answer.exit_code()), (1, 0));
        server.join().expect("server");
        std::fs::remove_file(&path).expect("remove");
    }
}
