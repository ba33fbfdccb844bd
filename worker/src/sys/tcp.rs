//! What only the kernel knows about a TCP connection, and how to reset one that has more than one
//! owner.
#![expect(unsafe_code, reason = "no dependency wraps TCP_INFO with all of its fields or AF_UNSPEC")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use nix::libc;

/// States of RFC 9293, as Linux numbers them.
const ESTABLISHED: u8 = 1;
const FIN_WAIT_1: u8 = 4;
const FIN_WAIT_2: u8 = 5;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;

/// Places in `struct tcp_info` of linux/tcp.h, which only ever grows at its end.
const LAST_DATA_RECEIVED_AT: usize = 52;
const BYTES_ACKED_AT: usize = 120;
const BYTES_RECEIVED_AT: usize = 128;
const INFO_LEN: usize = 136;

/// State of a TCP connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Info {
    state: u8,
    /// Time since the peer sent anything last; right to the millisecond.
    pub last_received: Duration,
    /// Bytes the peer sent that arrived in order, read by us or not.
    pub received: u64,
    /// Bytes the peer has acknowledged. Ends and beginnings of streams may count as one, so that only
    /// differences say something, as long as our half goes on.
    pub acknowledged: u64,
}

impl Info {
    /// The connection is over: reset, or ended by both sides.
    pub const fn is_closed(&self) -> bool {
        self.state == CLOSE
    }

    /// The peer has ended neither its half nor the connection.
    pub const fn peer_goes_on(&self) -> bool {
        matches!(self.state, ESTABLISHED | FIN_WAIT_1 | FIN_WAIT_2)
    }

    /// We have ended neither our half nor the connection.
    pub const fn we_go_on(&self) -> bool {
        matches!(self.state, ESTABLISHED | CLOSE_WAIT)
    }
}

/// Asks the kernel about a TCP connection.
///
/// # Errors
/// What `getsockopt(2)` says, for example on another kind of socket.
pub fn info(socket: &impl AsFd) -> io::Result<Info> {
    let mut bytes = [0_u8; INFO_LEN];
    let mut length = libc::socklen_t::try_from(bytes.len()).unwrap_or(0);
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel writes at most
    // `length` bytes to the buffer, which has as many, and the new length to `length`.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            bytes.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let word = |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk::<4>).copied();
    let long = |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk::<8>).copied();
    let state = bytes.first().copied().unwrap_or_default();
    let received = long(BYTES_RECEIVED_AT).map_or(0, u64::from_ne_bytes);
    // The end of the peer's half takes a place in its sequence numbers.
    let ended = !matches!(state, ESTABLISHED | FIN_WAIT_1 | FIN_WAIT_2 | CLOSE);
    Ok(Info {
        state,
        last_received: Duration::from_millis(
            word(LAST_DATA_RECEIVED_AT).map_or(0, u32::from_ne_bytes).into(),
        ),
        received: received.saturating_sub(u64::from(ended)),
        acknowledged: long(BYTES_ACKED_AT).map_or(0, u64::from_ne_bytes),
    })
}

/// Resets a TCP connection now, however many descriptors of it there are: the peer sees RST, and
/// what is queued is thrown away.
///
/// # Errors
/// What `connect(2)` says.
pub fn reset(socket: &impl AsFd) -> io::Result<()> {
    let nowhere = libc::sockaddr {
        sa_family: libc::sa_family_t::try_from(libc::AF_UNSPEC).unwrap_or(0),
        sa_data: [0; 14],
    };
    let length = libc::socklen_t::try_from(size_of_val(&nowhere)).unwrap_or(0);
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the kernel only reads
    // the address, of which `length` is the size.
    if unsafe { libc::connect(socket, &raw const nowhere, length) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read, Write},
        net::{Shutdown, TcpListener, TcpStream},
    };

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn the_kernel_counts_what_arrived_whether_it_was_read_or_not() {
        let (mut client, mut server) = pair();
        client.write_all(&[7; 1000]).unwrap();
        server.read_exact(&mut [0; 400]).unwrap();
        assert_eq!(info(&server).unwrap().received, 1000);
        assert!(info(&server).unwrap().peer_goes_on());
        assert!(info(&client).unwrap().we_go_on());
        client.shutdown(Shutdown::Write).unwrap();
        server.read_exact(&mut [0; 600]).unwrap();
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
        let ended = info(&server).unwrap();
        assert_eq!(ended.received, 1000);
        assert!(!ended.peer_goes_on() && !ended.is_closed() && ended.we_go_on());
        assert!(!info(&client).unwrap().we_go_on());
    }

    #[test]
    fn a_reset_reaches_the_peer_though_a_copy_of_the_descriptor_is_open() {
        let (mut client, server) = pair();
        let _copy = server.try_clone().unwrap();
        reset(&server).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert!(info(&server).unwrap().is_closed());
    }
}
