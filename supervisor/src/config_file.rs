//! The configuration file as bytes. What is in it is the worker's business.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use baton_contract::memfd;
use nix::fcntl::OFlag;

use crate::state::event::ConfigId;

/// Largest configuration file, bytes.
pub(crate) const MAX_LEN: u64 = 64 * 1024 * 1024;

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigFileError {
    #[error("cannot read the configuration `{}`: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the configuration `{}` is not a regular file", path.display())]
    Kind { path: PathBuf },
    #[error("the configuration `{}` is larger than {MAX_LEN} bytes", path.display())]
    TooLong { path: PathBuf },
}

/// Reads the whole file.
///
/// # Errors
/// When it is missing, unreadable, not a regular file, or too large.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ConfigFileError> {
    let failed = |source| ConfigFileError::Read { path: path.to_owned(), source };
    // Opening a pipe must not block the supervisor.
    let nonblock = OFlag::O_NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(ConfigFileError::Kind { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    let read = file.take(MAX_LEN.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
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
    }
}
