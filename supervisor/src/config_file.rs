//! The configuration file as bytes. What is in it is the worker's business.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use baton_contract::memfd;
use nix::{errno::Errno, fcntl::OFlag};

use crate::state::event::ConfigId;

/// Largest configuration file, bytes.
pub const MAX_LEN: u64 = 64 * 1024 * 1024;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// The system says why.
    #[error("cannot read the configuration `{}`: {reason}", path.display())]
    Read {
        /// As the user gave it.
        path: PathBuf,
        /// The system's, which is in the text and no further cause.
        reason: io::Error,
    },
    /// A directory, a pipe, a device.
    #[error("the configuration `{}` is not a regular file", path.display())]
    Kind {
        /// As the user gave it.
        path: PathBuf,
    },
    /// More than [`MAX_LEN`] bytes.
    #[error("the configuration `{}` is larger than {MAX_LEN} bytes", path.display())]
    TooLong {
        /// As the user gave it.
        path: PathBuf,
    },
}

/// Reads the whole file.
///
/// # Errors
/// When it is missing, unreadable, not a regular file, or too large.
pub fn read(path: &Path) -> Result<Vec<u8>, ConfigFileError> {
    let failed = |reason| ConfigFileError::Read { path: path.to_owned(), reason };
    // Opening a pipe must not block the supervisor.
    let nonblock = OFlag::O_NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path);
    // A socket, or a device that is not there, cannot even be opened.
    if file.as_ref().is_err_and(|error| error.raw_os_error() == Some(Errno::ENXIO as i32)) {
        return Err(ConfigFileError::Kind { path: path.to_owned() });
    }
    let file = file.map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(ConfigFileError::Kind { path: path.to_owned() });
    }
    // A file with holes may be any size.
    if metadata.len() > MAX_LEN {
        return Err(ConfigFileError::TooLong { path: path.to_owned() });
    }
    read_from(file, path)
}

/// Reads a stream that somebody else opened, like standard input, to its end.
///
/// # Errors
/// When it cannot be read, or is too large.
pub fn read_from(stream: impl Read, path: &Path) -> Result<Vec<u8>, ConfigFileError> {
    let failed = |reason| ConfigFileError::Read { path: path.to_owned(), reason };
    let mut bytes = Vec::new();
    let read = stream.take(MAX_LEN.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MAX_LEN {
        return Err(ConfigFileError::TooLong { path: path.to_owned() });
    }
    Ok(bytes)
}

/// Identifies the bytes (FNV-1a, 128 bits). It guards against mistakes, not against attackers: who
/// can write the configuration needs no collision.
pub(crate) fn identify(bytes: &[u8]) -> ConfigId {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let hash =
        bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    ConfigId(hash)
}

/// A sealed memory file with the bytes, for one worker.
///
/// # Errors
/// When there is no memory or no descriptor.
pub(crate) fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    memfd::sealed("baton-config", bytes)
}

/// The bytes of a memory file made by [`seal`].
///
/// # Errors
/// When it cannot be read.
pub(crate) fn read_sealed(file: OwnedFd) -> io::Result<Vec<u8>> {
    memfd::read(&File::from(file), MAX_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(identify(b"").to_string(), "6c62272e07bb014262b821756295c58d");
        assert_eq!(identify(b"a").to_string(), "d228cb696f1a8caf78912b704e4a8964");
    }

    #[test]
    fn only_a_regular_file_is_read() {
        assert!(matches!(read(Path::new("/dev/null")), Err(ConfigFileError::Kind { .. })));
        assert!(matches!(read(Path::new("/nowhere/x")), Err(ConfigFileError::Read { .. })));
        let directory = tempfile::tempdir().expect("directory");
        assert!(matches!(read(directory.path()), Err(ConfigFileError::Kind { .. })));
        // Nobody writes into it, and reading it must not wait for somebody.
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
        assert!(matches!(read(&pipe), Err(ConfigFileError::Kind { .. })));
        let socket = directory.path().join("socket");
        let _listens = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
        assert!(matches!(read(&socket), Err(ConfigFileError::Kind { .. })));
    }

    #[test]
    fn the_reason_of_the_system_is_said_once() {
        use std::error::Error as _;

        let error = read(Path::new("/nowhere/x")).expect_err("there is no such file");
        assert!(error.to_string().ends_with("No such file or directory (os error 2)"), "{error}");
        assert!(error.source().is_none(), "whoever prints causes would print it again");
    }

    #[test]
    fn a_file_of_more_than_64_mib_is_refused_without_reading_it() {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("holes");
        let file = File::create(&path).expect("create");
        file.set_len(1 << 40).expect("a file with holes");
        assert!(matches!(read(&path), Err(ConfigFileError::TooLong { .. })));
    }

    #[test]
    fn a_stream_is_read_to_its_end_or_to_64_mib() {
        let path = Path::new("-");
        assert_eq!(read_from(&b"admin: {}"[..], path).expect("short"), b"admin: {}");
        let endless = read_from(io::repeat(b' '), path);
        assert!(matches!(endless, Err(ConfigFileError::TooLong { .. })));
    }
}
