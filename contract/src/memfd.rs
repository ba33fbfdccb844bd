//! Bytes in an anonymous file, for other processes.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

/// A file with these bytes that nobody can change any more. `name` is shown in `/proc` only.
///
/// # Errors
/// When there is no descriptor or no memory left.
pub fn sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let name = CString::new(name)?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = File::from(memfd_create(name.as_c_str(), flags)?);
    // The position stays at the beginning, for readers that just read.
    file.write_all_at(bytes, 0)?;
    let seals = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// Whether nobody can change the bytes or the length of this file any more. False for what is no memory
/// file.
pub fn is_sealed(file: impl AsFd) -> bool {
    let needed = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    let seals = fcntl(file.as_fd(), FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_truncate);
    seals.is_ok_and(|seals| seals.contains(needed))
}

/// The bytes of such a file. Where others stand in it does not matter: the position is shared with
/// every copy of the descriptor, so it is not used.
///
/// # Errors
/// When it cannot be read, or is longer than `limit` bytes.
pub fn read(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    if length > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_bytes_are_read_from_any_copy_and_cannot_be_changed() {
        let mut file = File::from(sealed("test", b"some bytes").expect("a file"));
        let copy = file.try_clone().expect("a copy");
        assert_eq!(read(&file, 10).expect("read"), b"some bytes");
        assert_eq!(read(&copy, 10).expect("read"), b"some bytes");
        assert!(read(&copy, 9).is_err());
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(0).is_err());
        assert!(is_sealed(&file));
    }

    #[test]
    fn a_file_that_can_still_change_is_not_sealed() {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create(c"test", flags).expect("a file");
        assert!(!is_sealed(&file));
        let some = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        fcntl(&file, FcntlArg::F_ADD_SEALS(some)).expect("some seals");
        assert!(!is_sealed(&file), "it could be written to");
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)).expect("the last seal");
        assert!(is_sealed(&file));
        let (pipe, _end) = io::pipe().expect("a pipe");
        assert!(!is_sealed(&pipe));
    }
}
